import { describe, expect, it } from 'vitest';
import { hueOf, initial } from '../src/lib/avatar';
import { backoff } from '../src/lib/backoff';
import { pieces } from '../src/lib/links';
import { clock, daysAgo } from '../src/lib/when';
import { bare, localPart, parseAddress, resource } from '../src/lib/xmpp/jid';

describe('pieces', () => {
  it('finds web addresses and leaves the punctuation after them', () => {
    expect(pieces('보세요: https://a.test/x?b=c. (http://d.test)')).toEqual([
      { text: '보세요: ', href: null },
      { text: 'https://a.test/x?b=c', href: 'https://a.test/x?b=c' },
      { text: '. (', href: null },
      { text: 'http://d.test', href: 'http://d.test' },
      { text: ')', href: null },
    ]);
  });

  it('never links another scheme', () => {
    for (const text of ['javascript:alert(1)', 'data:text/html,x', 'see ftp://x.test', '']) {
      expect(pieces(text).every((piece) => piece.href === null)).toBe(true);
    }
  });
});

describe('addresses', () => {
  it('are split and folded', () => {
    expect([bare('Bob@Moim.Test/A/b'), resource('b@c/A/b'), localPart('bob@moim.test')]).toEqual(['bob@moim.test', 'A/b', 'bob']);
  });

  it('are checked before they are sent anywhere', () => {
    expect(parseAddress('  Alice@Moim.test ')).toBe('alice@moim.test');
    expect(parseAddress('보배@moim.test')).toBe('보배@moim.test');
    for (const text of ['alice', '@moim.test', 'a b@c', 'a@b/c', 'a@', 'a@.b', 'a@b..c']) expect(parseAddress(text), text).toBeNull();
  });
});

it('backoff doubles from half a second to half a minute', () => {
  expect(backoff(0, 0.999)).toBeLessThanOrEqual(500);
  expect(backoff(3, 0)).toBe(2000);
  expect(backoff(1000, 0.999)).toBeLessThanOrEqual(30_000);
});

it('avatars are the same everywhere', () => {
  expect(hueOf('bob@moim.test')).toBe(hueOf('bob@moim.test'));
  expect([initial('bob'), initial('박보배'), initial('👩🏽‍🚀 x'), initial(' ')]).toEqual(['B', '박', '👩🏽‍🚀', '·']);
});

it('days are counted by the calendar', () => {
  expect(daysAgo(new Date(2026, 10, 21, 23, 59), new Date(2026, 10, 22, 0, 1))).toBe(1);
  expect(clock(new Date(2026, 10, 22, 14, 5), 'en')).toBe('14:05');
  expect(clock(new Date(2026, 10, 22, 14, 5), 'ko')).toMatch(/ 2:05$/);
});

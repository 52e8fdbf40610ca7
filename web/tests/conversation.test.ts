import { describe, expect, it } from 'vitest';
import { advance, byDay, insertAt, isRepeat, merge, type Message } from '../src/lib/xmpp/conversation';

const message = (id: string, at: string, mine = false): Message => ({ id, mine, body: id, at: new Date(at), state: mine ? 'sent' : 'received' });

describe('insertAt', () => {
  const there = [message('a', '2026-11-22T10:00:00'), message('b', '2026-11-22T12:00:00')];

  it('puts new messages last, whatever their clock says', () => {
    expect(insertAt(there, message('c', '2026-11-22T09:00:00'), false)).toBe(2);
  });

  it('puts messages that were stored for us where they belong', () => {
    expect(insertAt(there, message('c', '2026-11-22T11:00:00'), true)).toBe(1);
    expect(insertAt(there, message('c', '2026-11-22T12:00:00'), true)).toBe(2);
    expect(insertAt([], message('c', '2026-11-22T12:00:00'), true)).toBe(0);
  });
});

describe('merge', () => {
  const at = '2026-11-22T10:00:00';
  const past = (id: string) => ({ ...message(id, at), archiveId: id });

  it('keeps the order of the archive among messages of one moment', () => {
    const list: Message[] = [];
    merge(list, ['c', 'd'].map(past), '');
    merge(list, ['a', 'b'].map(past), 'c');
    expect(list.map((m) => m.id)).toEqual(['a', 'b', 'c', 'd']);
  });

  it('knows what was sent from here or came live', () => {
    const list = [message('b', at), message('mine', at, true)];
    merge(list, [past('a'), past('b'), { ...past('mine'), mine: true }], '');
    expect(list.map((m) => m.id)).toEqual(['a', 'b', 'mine']);
  });

  it('leaves messages of today after those of the past', () => {
    const list = [message('now', '2026-11-23T10:00:00')];
    merge(list, [past('a')], '');
    expect(list.map((m) => m.id)).toEqual(['a', 'now']);
  });
});

it('isRepeat knows messages of the other side by their identifier', () => {
  const there = [message('x', '2026-11-22T10:00:00'), message('y', '2026-11-22T10:00:00', true)];
  expect(isRepeat(there, 'x')).toBe(true);
  expect(isRepeat(there, 'y')).toBe(false);
  expect(isRepeat([message('', '2026-11-22T10:00:00')], '')).toBe(false);
});

describe('advance', () => {
  it('moves forward only', () => {
    expect(advance('queued', 'sending')).toBe('sending');
    expect(advance('sending', 'sent')).toBe('sent');
    expect(advance('delivered', 'sent')).toBe('delivered');
    expect(advance('sent', 'failed')).toBe('failed');
    expect(advance('delivered', 'failed')).toBe('delivered');
  });

  it('puts only the unconfirmed back into the queue', () => {
    expect(advance('sending', 'queued')).toBe('queued');
    expect(advance('sent', 'queued')).toBe('sent');
    expect(advance('failed', 'queued')).toBe('failed');
  });
});

it('byDay groups by calendar days', () => {
  const days = byDay([message('a', '2026-11-21T23:59:00'), message('b', '2026-11-22T00:01:00'), message('c', '2026-11-22T09:00:00')]);
  expect(days.map((day) => [day.key, day.messages.length])).toEqual([
    ['2026-11-21', 1],
    ['2026-11-22', 2],
  ]);
});

import { DOMParser } from '@xmldom/xmldom';
import { describe, expect, it } from 'vitest';
import { History } from '../src/lib/xmpp/history';

const parse = (xml: string) => new DOMParser().parseFromString(xml, 'text/xml').documentElement as unknown as Element;

const result = (query: string, id: string, message: string, from = 'alice@moim.test') =>
  parse(
    `<message xmlns="jabber:client" from="${from}"><result xmlns="urn:xmpp:mam:2" queryid="${query}" id="${id}">
      <forwarded xmlns="urn:xmpp:forward:0"><delay xmlns="urn:xmpp:delay" stamp="2026-01-02T03:04:05.678Z"/>${message}
      </forwarded></result></message>`,
  );
const said = (from: string, to: string, body: string, id = body) =>
  `<message xmlns="jabber:client" type="chat" from="${from}" to="${to}" id="${id}"><body>${body}</body></message>`;
const fin = (first: string, complete: boolean) =>
  parse(
    `<iq xmlns="jabber:client" type="result"><fin xmlns="urn:xmpp:mam:2" ${complete ? 'complete="true"' : ''}>
      <set xmlns="http://jabber.org/protocol/rsm"><first>${first}</first><last>9</last></set></fin></iq>`,
  );

describe('History', () => {
  it('gathers the results of its own query until the answer comes', async () => {
    const history: History = new History('alice@moim.test', async () => {
      expect(history.take(result('h1', '1', said('bob@moim.test/x', 'alice@moim.test', 'hi')))).toBe(true);
      expect(history.take(result('h1', '2', said('alice@moim.test/y', 'bob@moim.test', 'you')))).toBe(true);
      expect(history.take(result('other', '3', said('bob@moim.test/x', 'alice@moim.test', 'no')))).toBe(true);
      return fin('1', false);
    });
    const page = await history.page('bob@moim.test', '');
    expect(page.messages.map((m) => [m.with, m.mine, m.body, m.archiveId])).toEqual([
      ['bob@moim.test', false, 'hi', '1'],
      ['bob@moim.test', true, 'you', '2'],
    ]);
    expect(page.messages[0]?.at.toISOString()).toBe('2026-01-02T03:04:05.678Z');
    expect([page.oldest, page.complete]).toEqual(['1', false]);
  });

  it('believes nobody but its own account', async () => {
    const forged = result('h1', '1', said('bob@moim.test', 'alice@moim.test', 'forged'), 'mallory@moim.test/x');
    const history: History = new History('alice@moim.test', async () => {
      expect(history.take(forged)).toBe(true);
      return fin('', true);
    });
    expect(await history.page(null, '')).toEqual({ messages: [], oldest: '', complete: true });
  });

  it('leaves other messages alone', () => {
    const history = new History('alice@moim.test', async () => fin('', true));
    expect(history.take(parse(said('bob@moim.test', 'alice@moim.test', 'live')))).toBe(false);
  });

  it('passes over what has no words, such as messages that were taken back', async () => {
    const history: History = new History('alice@moim.test', async () => {
      history.take(result('h1', '1', '<message xmlns="jabber:client" from="bob@moim.test" to="alice@moim.test"><retracted xmlns="urn:xmpp:message-retract:1"/></message>'));
      return fin('1', true);
    });
    expect((await history.page(null, '')).messages).toEqual([]);
  });
});

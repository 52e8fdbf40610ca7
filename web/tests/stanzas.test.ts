import { DOMParser } from '@xmldom/xmldom';
import { describe, expect, it } from 'vitest';
import { readMessage, readPresence, readRoster, strongest } from '../src/lib/xmpp/stanzas';

const parse = (xml: string) => new DOMParser().parseFromString(xml, 'text/xml').documentElement as unknown as Element;

describe('readRoster', () => {
  it('reads items and folds their addresses', () => {
    const iq = parse(
      `<iq type="result" xmlns="jabber:client"><query xmlns="jabber:iq:roster">
        <item jid="Bob@Moim.test" name="박보배" subscription="both"><group>Team</group></item>
        <item jid="carol@moim.test" ask="subscribe"/><item/><other jid="x@y"/></query></iq>`,
    );
    expect(readRoster(iq)).toEqual([
      { address: 'bob@moim.test', name: '박보배', subscription: 'both', asked: false },
      { address: 'carol@moim.test', name: '', subscription: 'none', asked: true },
    ]);
  });

  it('takes nothing from another namespace', () => {
    expect(readRoster(parse('<iq xmlns="jabber:client"><query xmlns="other"><item jid="a@b"/></query></iq>'))).toEqual([]);
  });
});

describe('readPresence', () => {
  const presence = (inner: string, attributes = '') => readPresence(parse(`<presence xmlns="jabber:client" from="bob@moim.test/x" ${attributes}>${inner}</presence>`));

  it('maps show values to the four that people see', () => {
    expect(presence('')).toMatchObject({ type: 'presence', show: 'available', priority: 0 });
    expect(presence('<show>chat</show><priority>5</priority>')).toMatchObject({ show: 'available', priority: 5 });
    expect(presence('<show>xa</show>')).toMatchObject({ show: 'away' });
    expect(presence('<show>dnd</show><priority>x</priority>')).toMatchObject({ show: 'dnd', priority: 0 });
    expect(presence('', 'type="unavailable"')).toMatchObject({ type: 'presence', show: 'offline' });
    expect(presence('', 'type="subscribe"')).toMatchObject({ type: 'subscribe' });
  });

  it('ignores what is none, and what has no sender', () => {
    expect(presence('', 'type="probe"')).toBeNull();
    expect(readPresence(parse('<presence xmlns="jabber:client"/>'))).toBeNull();
  });
});

describe('readMessage', () => {
  it('reads text, time and receipts', () => {
    const stanza = parse(
      `<message xmlns="jabber:client" from="bob@moim.test/x" type="chat" id="m1"><body>안녕 &amp; 👋</body>
        <delay xmlns="urn:xmpp:delay" stamp="2026-11-20T09:30:00Z"/><request xmlns="urn:xmpp:receipts"/></message>`,
    );
    expect(readMessage(stanza)).toEqual({
      from: 'bob@moim.test/x',
      id: 'm1',
      body: '안녕 & 👋',
      at: new Date('2026-11-20T09:30:00Z'),
      wantsReceipt: true,
      receiptFor: null,
      error: false,
    });
    const receipt = parse('<message xmlns="jabber:client" from="b@c"><received xmlns="urn:xmpp:receipts" id="m1"/></message>');
    expect(readMessage(receipt)).toMatchObject({ body: null, receiptFor: 'm1' });
  });

  it('leaves group chat and headlines alone, and an impossible time out', () => {
    expect(readMessage(parse('<message xmlns="jabber:client" from="b@c" type="groupchat"><body>x</body></message>'))).toBeNull();
    const odd = parse('<message xmlns="jabber:client" from="b@c"><body>x</body><delay xmlns="urn:xmpp:delay" stamp="soon"/></message>');
    expect(readMessage(odd)?.at).toBeNull();
  });
});

it('the device with the highest priority speaks, the later one among equals', () => {
  expect(strongest([])).toBe('offline');
  expect(strongest([{ show: 'dnd', priority: 5 }, { show: 'available', priority: 0 }])).toBe('dnd');
  expect(strongest([{ show: 'away', priority: 0 }, { show: 'available', priority: 0 }])).toBe('available');
});

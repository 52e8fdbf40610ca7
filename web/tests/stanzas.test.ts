import { DOMParser } from '@xmldom/xmldom';
import { describe, expect, it } from 'vitest';
import { readItems, readMessage, readPresence, readRoster, readSlot, readUploadLimit, strongest } from '../src/lib/xmpp/stanzas';
import { fileName, isPicture, ownPath } from '../src/lib/xmpp/files';

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
      file: null,
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

describe('files', () => {
  it('are messages that are nothing but the link', () => {
    const message = (body: string, url: string) =>
      readMessage(parse(`<message xmlns="jabber:client" from="b@c" type="chat"><body>${body}</body><x xmlns="jabber:x:oob"><url>${url}</url></x></message>`));
    expect(message('https://a.test/x.png', 'https://a.test/x.png')?.file).toBe('https://a.test/x.png');
    expect(message('look: https://a.test/x.png', 'https://a.test/x.png')?.file).toBeNull();
    expect(message('javascript:alert(1)', 'javascript:alert(1)')?.file).toBeNull();
  });

  it('go to the service that says it takes them', () => {
    const items = parse('<iq xmlns="jabber:client"><query xmlns="http://jabber.org/protocol/disco#items"><item jid="a.b"/><item jid="c.b"/></query></iq>');
    expect(readItems(items)).toEqual(['a.b', 'c.b']);
    const info = (features: string, form = '') =>
      parse(`<iq xmlns="jabber:client"><query xmlns="http://jabber.org/protocol/disco#info">${features}${form}</query></iq>`);
    const upload = '<feature var="urn:xmpp:http:upload:0"/>';
    const form = '<x xmlns="jabber:x:data" type="result"><field var="max-file-size"><value>1000</value></field></x>';
    expect([readUploadLimit(info(upload, form)), readUploadLimit(info(upload)), readUploadLimit(info('', form))]).toEqual([1000, Infinity, null]);
    const slot = parse('<iq xmlns="jabber:client"><slot xmlns="urn:xmpp:http:upload:0"><put url="https://p"/><get url="https://g"/></slot></iq>');
    expect(readSlot(slot)).toEqual({ put: 'https://p', get: 'https://g' });
    expect(readSlot(items)).toBeNull();
  });

  it('are our own only on our origins and in our place', () => {
    const id = '0123456789abcdef'.repeat(2);
    const own = ['https://edge.test'];
    expect(ownPath(`https://edge.test/upload/${id}/a.png`, own)).toBe(`/upload/${id}/a.png`);
    expect(ownPath(`https://edge.test/upload/${id}/a.png?token=1`, own)).toBe(`/upload/${id}/a.png?token=1`);
    for (const link of [`https://evil.test/upload/${id}/a.png`, `https://edge.test/api/logout`, `https://edge.test/upload/${id}/../../api/x`, 'x']) {
      expect(ownPath(link, own)).toBeNull();
    }
    expect(fileName(`https://edge.test/upload/${id}/%ED%95%9C.png`)).toBe('한.png');
    expect([isPicture('https://a/x.PNG'), isPicture('https://a/x.svg'), isPicture('https://a/x.png?y')]).toEqual([true, false, true]);
  });
});

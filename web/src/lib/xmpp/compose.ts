// The stanzas the app sends, each by its name (RFC 6121, XEP-0184, XEP-0199, XEP-0359).
import { $iq, $msg, $pres, Strophe } from 'strophe.js';
import type { Show } from './stanzas';

export type Stanza = ReturnType<typeof $pres>;

const RECEIPTS = 'urn:xmpp:receipts';
const ORIGIN = 'urn:xmpp:sid:0';
const OOB = 'jabber:x:oob';
const UPLOAD = 'urn:xmpp:http:upload:0';
const ARCHIVE = 'urn:xmpp:mam:2';
export const PING = 'urn:xmpp:ping';
export const ROSTER = Strophe.NS.ROSTER;

export const ping = (): Stanza => $iq({ type: 'get' }).c('ping', { xmlns: PING });

export const rosterGet = (): Stanza => $iq({ type: 'get' }).c('query', { xmlns: ROSTER });

export const rosterSet = (address: string, name: string): Stanza =>
  $iq({ type: 'set' }).c('query', { xmlns: ROSTER }).c('item', { jid: address, name });

export const rosterRemove = (address: string): Stanza =>
  $iq({ type: 'set' }).c('query', { xmlns: ROSTER }).c('item', { jid: address, subscription: 'remove' });

export function presence(show: Exclude<Show, 'offline'>): Stanza {
  return show === 'available' ? $pres() : $pres().c('show').t(show).up();
}

export const subscription = (to: string, type: 'subscribe' | 'subscribed' | 'unsubscribed'): Stanza => $pres({ to, type });

/** A message; with `file`, one that is nothing but the link of a file (XEP-0066 as clients use it with uploads). */
export function chatMessage(to: string, id: string, body: string, file?: string): Stanza {
  const stanza = $msg({ to, type: 'chat', id }).c('body').t(body).up();
  if (file) stanza.c('x', { xmlns: OOB }).c('url').t(file).up().up();
  return stanza.c('request', { xmlns: RECEIPTS }).up().c('origin-id', { xmlns: ORIGIN, id }).up();
}

export const discoItems = (to: string): Stanza => $iq({ type: 'get', to }).c('query', { xmlns: Strophe.NS.DISCO_ITEMS });

export const discoInfo = (to: string): Stanza => $iq({ type: 'get', to }).c('query', { xmlns: Strophe.NS.DISCO_INFO });

export function slotRequest(to: string, file: { name: string; size: number; type: string }): Stanza {
  const asked = { xmlns: UPLOAD, filename: file.name, size: String(file.size) };
  return $iq({ type: 'get', to }).c('request', file.type ? { ...asked, 'content-type': file.type } : asked);
}

/** Asks the account's archive for messages before an archive id ('': the newest), with somebody or with anybody. */
export function archiveQuery(query: string, address: string | null, before: string, max: number): Stanza {
  const stanza = $iq({ type: 'set' }).c('query', { xmlns: ARCHIVE, queryid: query });
  if (address) {
    stanza.c('x', { xmlns: 'jabber:x:data', type: 'submit' });
    stanza.c('field', { var: 'FORM_TYPE', type: 'hidden' }).c('value').t(ARCHIVE).up().up();
    stanza.c('field', { var: 'with' }).c('value').t(address).up().up().up();
  }
  stanza.c('set', { xmlns: 'http://jabber.org/protocol/rsm' }).c('max').t(String(max)).up().c('before');
  return before ? stanza.t(before) : stanza;
}

export const receipt = (to: string, id: string): Stanza =>
  $msg({ to, type: 'chat', id: crypto.randomUUID() }).c('received', { xmlns: RECEIPTS, id });

export function result(id: string, to: string | null): Stanza {
  return $iq(to ? { type: 'result', id, to } : { type: 'result', id });
}

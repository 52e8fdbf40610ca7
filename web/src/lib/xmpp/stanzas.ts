// Parsed stanzas as plain objects: the only file that reads XML. Pure; works on any DOM (RFC 6121, XEP-0184, XEP-0203).
import { bare } from './jid';

export type Show = 'available' | 'away' | 'dnd' | 'offline';
export type Subscription = 'none' | 'to' | 'from' | 'both' | 'remove';

export interface RosterItem {
  address: string;
  name: string;
  subscription: Subscription;
  asked: boolean;
}

export interface PresenceStanza {
  from: string;
  type: 'presence' | 'subscribe' | 'subscribed' | 'unsubscribe' | 'unsubscribed' | 'error';
  show: Show;
  priority: number;
}

export interface MessageStanza {
  from: string;
  id: string;
  body: string | null;
  /** The link of a file, when the body says the same (XEP-0066). */
  file: string | null;
  at: Date | null;
  wantsReceipt: boolean;
  receiptFor: string | null;
  error: boolean;
}

const RECEIPTS = 'urn:xmpp:receipts';
const DELAY = 'urn:xmpp:delay';
const OOB = 'jabber:x:oob';
const ARCHIVE = 'urn:xmpp:mam:2';
const FORWARD = 'urn:xmpp:forward:0';
const UPLOAD = 'urn:xmpp:http:upload:0';
const MAX_BODY = 64 * 1024;

function children(element: Element): Element[] {
  return Array.from(element.childNodes).filter((node): node is Element => node.nodeType === 1);
}

/** The first child element of that name, and namespace when given. */
export function child(element: Element, name: string, namespace?: string): Element | null {
  return (
    children(element).find(
      (el) => el.localName === name && (!namespace || (el.namespaceURI ?? el.getAttribute('xmlns')) === namespace),
    ) ?? null
  );
}

export function readRoster(iq: Element): RosterItem[] {
  const query = child(iq, 'query', 'jabber:iq:roster');
  if (!query) return [];
  return children(query)
    .filter((el) => el.localName === 'item' && el.getAttribute('jid'))
    .map((el) => ({
      address: bare(el.getAttribute('jid') ?? ''),
      name: (el.getAttribute('name') ?? '').slice(0, 256),
      subscription: subscription(el.getAttribute('subscription')),
      asked: el.getAttribute('ask') === 'subscribe',
    }));
}

function subscription(value: string | null): Subscription {
  return value === 'to' || value === 'from' || value === 'both' || value === 'remove' ? value : 'none';
}

const SPECIAL = ['subscribe', 'subscribed', 'unsubscribe', 'unsubscribed', 'error'] as const;

export function readPresence(stanza: Element): PresenceStanza | null {
  const from = stanza.getAttribute('from');
  if (!from) return null;
  const type = stanza.getAttribute('type');
  const special = SPECIAL.find((name) => name === type);
  if (type && !special && type !== 'unavailable') return null;
  const priority = Number.parseInt(child(stanza, 'priority')?.textContent ?? '0', 10);
  return {
    from,
    type: special ?? 'presence',
    show: type === 'unavailable' ? 'offline' : show(child(stanza, 'show')?.textContent ?? ''),
    priority: Number.isNaN(priority) ? 0 : priority,
  };
}

function show(value: string): Show {
  if (value === 'away' || value === 'xa') return 'away';
  return value === 'dnd' ? 'dnd' : 'available';
}

export function readMessage(stanza: Element): MessageStanza | null {
  const from = stanza.getAttribute('from');
  if (!from) return null;
  const type = stanza.getAttribute('type') ?? 'normal';
  if (type !== 'chat' && type !== 'normal' && type !== 'error') return null;
  const stamp = child(stanza, 'delay', DELAY)?.getAttribute('stamp') ?? null;
  const at = stamp ? new Date(stamp) : null;
  const body = child(stanza, 'body')?.textContent?.slice(0, MAX_BODY) ?? null;
  const outOfBand = child(stanza, 'x', OOB);
  const link = outOfBand && child(outOfBand, 'url', OOB)?.textContent;
  return {
    from,
    id: stanza.getAttribute('id') ?? '',
    body,
    file: link && link === body && /^https?:/i.test(link) && URL.canParse(link) ? link : null,
    at: at && !Number.isNaN(at.getTime()) ? at : null,
    wantsReceipt: child(stanza, 'request', RECEIPTS) !== null,
    receiptFor: child(stanza, 'received', RECEIPTS)?.getAttribute('id') ?? null,
    error: type === 'error',
  };
}

export interface ArchiveResult {
  query: string;
  id: string;
  at: Date | null;
  message: Element | null;
}

/** A message out of an archive (XEP-0313); null when the stanza is something else. */
export function readResult(stanza: Element): ArchiveResult | null {
  const result = child(stanza, 'result', ARCHIVE);
  if (!result) return null;
  const forwarded = child(result, 'forwarded', FORWARD);
  const stamp = forwarded && child(forwarded, 'delay', DELAY)?.getAttribute('stamp');
  const at = stamp ? new Date(stamp) : null;
  return {
    query: result.getAttribute('queryid') ?? '',
    id: result.getAttribute('id') ?? '',
    at: at && !Number.isNaN(at.getTime()) ? at : null,
    message: forwarded && child(forwarded, 'message'),
  };
}

/** The end of an archive's answer: the id of the page's first message, and whether nothing lies before it. */
export function readFin(iq: Element): { first: string; complete: boolean } {
  const fin = child(iq, 'fin', ARCHIVE);
  const set = fin && child(fin, 'set');
  return {
    first: (set && child(set, 'first')?.textContent) ?? '',
    complete: !fin || fin.getAttribute('complete') === 'true',
  };
}

interface Online {
  show: Show;
  priority: number;
}

/** What one person's devices amount to: the device with the highest priority speaks, a later one among equals. */
export function strongest(devices: Iterable<Online>): Show {
  let best: Online | null = null;
  for (const device of devices) if (!best || device.priority >= best.priority) best = device;
  return best?.show ?? 'offline';
}

/** The services that a domain lists (XEP-0030). */
export function readItems(iq: Element): string[] {
  const query = child(iq, 'query');
  return query ? children(query).flatMap((item) => item.getAttribute('jid') ?? []) : [];
}

/** The largest file that an upload service takes, in bytes; null when it is none (XEP-0363 section 4). */
export function readUploadLimit(iq: Element): number | null {
  const query = child(iq, 'query');
  const offered = query && children(query).some((el) => el.localName === 'feature' && el.getAttribute('var') === UPLOAD);
  if (!query || !offered) return null;
  const fields = children(query).filter((el) => el.localName === 'x').flatMap(children);
  const field = fields.find((el) => el.getAttribute('var') === 'max-file-size');
  const limit = Number(field && child(field, 'value')?.textContent);
  return limit > 0 ? limit : Infinity;
}

/** Where to put a file and where others get it (XEP-0363 section 5). */
export function readSlot(iq: Element): { put: string; get: string } | null {
  const slot = child(iq, 'slot', UPLOAD);
  const put = slot && child(slot, 'put', UPLOAD)?.getAttribute('url');
  const get = slot && child(slot, 'get', UPLOAD)?.getAttribute('url');
  return put && get ? { put, get } : null;
}

// Which screen an address means. Pure; the reactive half is router.svelte.ts.
import { bare } from './xmpp/jid';

export type Route =
  | { page: 'home'; tab: 'chats'; contact: string | null }
  | { page: 'home'; tab: 'meetings' }
  | { page: 'meeting'; callId: string; query: string };

/** `/meeting/<callId>` is a meeting (an empty call ID asks for one); everything else is the main page, its tab in the hash. */
export function parseRoute(path: string, query: string, hash: string): Route {
  const meeting = /^\/meeting(?:\/([^/]*))?\/?$/.exec(path);
  if (meeting) return { page: 'meeting', callId: decode(meeting[1] ?? ''), query };
  const [, tab, detail] = /^#\/([a-z]+)(?:\/(.+))?$/.exec(hash) ?? [];
  if (tab === 'meetings') return { page: 'home', tab };
  return { page: 'home', tab: 'chats', contact: tab === 'chats' && detail ? bare(decode(detail)) : null };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const chatHref = (address: string): string => `/#/chats/${encodeURIComponent(address)}`;

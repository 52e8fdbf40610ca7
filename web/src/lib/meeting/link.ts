// Meeting links and what their query asks for: `/meeting/<callId>?secret=…&name=…&audioMuted=1&videoDisabled=1&skipJoinOptions=1`.

export interface JoinTarget {
  callId: string;
  secret: string;
}

export interface JoinOptions {
  secret: string;
  name: string;
  audioMuted: boolean;
  videoDisabled: boolean;
  skipJoinOptions: boolean;
  /** `ice=relay`: only paths through the TURN server, to test it. */
  relayOnly: boolean;
}

/** Reads a call ID (spaces and dashes are for the eye) or a meeting link on any host. Null when it is neither. */
export function parseJoin(typed: string): JoinTarget | null {
  const text = typed.trim();
  const digits = text.replace(/[\s-]/g, '');
  if (/^\d{3,32}$/.test(digits)) return { callId: digits, secret: '' };
  const candidate = /^https?:\/\//i.test(text) ? text : `https://${text}`;
  if (!URL.canParse(candidate)) return null;
  const url = new URL(candidate);
  const callId = /^\/meeting\/([A-Za-z0-9._~-]{1,64})\/?$/.exec(url.pathname)?.[1];
  return callId ? { callId, secret: url.searchParams.get('secret') ?? '' } : null;
}

export function meetingHref({ callId, secret }: JoinTarget): string {
  const query = secret ? `?${new URLSearchParams({ secret }).toString()}` : '';
  return `/meeting/${encodeURIComponent(callId)}${query}`;
}

function flag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name);
  return value !== null && !['0', 'false', 'no'].includes(value.toLowerCase());
}

export function parseOptions(search: string): JoinOptions {
  const query = new URLSearchParams(search);
  return {
    secret: query.get('secret') ?? '',
    name: (query.get('name') ?? '').trim().slice(0, 64),
    audioMuted: flag(query, 'audioMuted'),
    videoDisabled: flag(query, 'videoDisabled'),
    skipJoinOptions: flag(query, 'skipJoinOptions'),
    relayOnly: query.get('ice') === 'relay',
  };
}

/** A call ID in groups of three, as people read it aloud. */
export const spoken = (callId: string): string =>
  /^\d{5,}$/.test(callId) ? callId.replace(/(\d{3})(?=\d)/g, '$1 ') : callId;

// Addresses of XMPP (RFC 7622) as far as the app needs them: split, fold, check.

/** `local@domain` of a full or bare JID, lower case. */
export function bare(jid: string): string {
  const slash = jid.indexOf('/');
  return (slash < 0 ? jid : jid.slice(0, slash)).toLowerCase();
}

/** The resource of a full JID; empty for a bare one. */
export function resource(jid: string): string {
  const slash = jid.indexOf('/');
  return slash < 0 ? '' : jid.slice(slash + 1);
}

/** The part before the @, which serves as a name when nobody gave a better one. */
export function localPart(jid: string): string {
  const address = bare(jid);
  const at = address.indexOf('@');
  return at < 0 ? address : address.slice(0, at);
}

/** What a person typed as an address: trimmed and folded, or null when it cannot be one. */
export function parseAddress(text: string): string | null {
  const folded = text.trim().toLowerCase();
  return folded.length <= 1023 && /^[^\s"&'/:<>@]+@[^\s"&'/:<>@.]+(\.[^\s"&'/:<>@.]+)*$/.test(folded) ? folded : null;
}

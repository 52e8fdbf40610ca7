// Splits a message into text and web addresses, so that only http and https ones become links.

export interface Piece {
  text: string;
  href: string | null;
}

const URL_PATTERN = /\bhttps?:\/\/[^\s<>"'`]+/gi;
const TRAILING = /[.,;:!?)\]}…」』”’]+$/;

export function pieces(body: string): Piece[] {
  const found: Piece[] = [];
  let end = 0;
  for (const match of body.matchAll(URL_PATTERN)) {
    const url = match[0].replace(TRAILING, '');
    if (!URL.canParse(url)) continue;
    if (match.index > end) found.push({ text: body.slice(end, match.index), href: null });
    found.push({ text: url, href: url });
    end = match.index + url.length;
  }
  if (end < body.length) found.push({ text: body.slice(end), href: null });
  return found;
}

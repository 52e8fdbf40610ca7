// Links of uploaded files: which ones lie on our own origin, what they are called, which are pictures. Pure.

const OWN_PATH = /^\/upload\/[0-9a-f]{32}\/[^/]+$/;
const PICTURE = /\.(png|jpe?g|gif|webp|avif|bmp)$/i;

/** The path of an uploaded file on our own origin; null for links that lead elsewhere. */
export function ownPath(link: string, origins: readonly string[]): string | null {
  if (!URL.canParse(link)) return null;
  const url = new URL(link);
  return origins.includes(url.origin) && OWN_PATH.test(url.pathname) ? url.pathname + url.search : null;
}

/** The name at the end of a link. */
export function fileName(link: string): string {
  const last = URL.canParse(link) ? (new URL(link).pathname.split('/').at(-1) ?? '') : '';
  try {
    return decodeURIComponent(last) || link;
  } catch {
    return last;
  }
}

export function isPicture(link: string): boolean {
  return PICTURE.test(fileName(link));
}

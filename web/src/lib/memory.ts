// Small non-secret choices kept on this device. Private browsing may refuse storage: then they last for the page.
const PREFIX = 'moim.';
const fallback = new Map<string, string>();

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(PREFIX + key);
  } catch {
    return fallback.get(key) ?? null;
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(PREFIX + key, value);
  } catch {
    fallback.set(key, value);
  }
}

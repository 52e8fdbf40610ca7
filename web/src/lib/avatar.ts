// A stable colour and letter for a person without a picture.

/** A hue in degrees from any text (FNV-1a), the same on every device. */
export function hueOf(seed: string): number {
  let hash = 0x811c9dc5;
  for (const char of seed) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193);
  return (hash >>> 0) % 360;
}

/** The first character a reader would count, upper case. */
export function initial(name: string): string {
  const first = new Intl.Segmenter().segment(name.trim())[Symbol.iterator]().next();
  return first.done ? '·' : first.value.segment.toUpperCase();
}

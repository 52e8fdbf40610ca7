// The pure half of the translations: which language, and how a text is filled.
export type Language = 'ko' | 'en';

/** The saved choice when it is one of ours, else the first language of the browser that is; English at last. */
export function pickLanguage(saved: string | null, wanted: readonly string[]): Language {
  if (saved === 'ko' || saved === 'en') return saved;
  for (const tag of wanted) {
    const primary = tag.toLowerCase().split('-')[0];
    if (primary === 'ko' || primary === 'en') return primary;
  }
  return 'en';
}

/** Puts `values` into the `{name}` places of a text. An unknown place stays as it is, to be seen in testing. */
export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (place, name: string) => String(values[name] ?? place));
}

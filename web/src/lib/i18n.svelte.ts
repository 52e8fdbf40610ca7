// Texts in the language of the person: chosen from the browser, switched in the app, remembered on this device.
import en, { type Key, type Texts } from '../lang/en';
import ko from '../lang/ko';
import { fill, pickLanguage, type Language } from './language';
import { recall, remember } from './memory';

const TEXTS: Record<Language, Texts> = { en, ko };
export const LANGUAGES: ReadonlyArray<{ code: Language; name: string }> = [
  { code: 'ko', name: '한국어' },
  { code: 'en', name: 'English' },
];

let current = $state<Language>(pickLanguage(recall('language'), navigator.languages));

export const language = {
  get code(): Language {
    return current;
  },
  set(code: Language): void {
    current = code;
    remember('language', code);
  },
};

/** The text of a key in the current language, with `{name}` places filled from `values`. */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  return fill(TEXTS[current][key], values);
}

/** The text of `prefix + code` when there is one, else of `fallback`: for codes that come from a server. */
export function tCode(prefix: string, code: string, fallback: Key, values: Record<string, string> = {}): string {
  const key = prefix + code;
  return key in en ? t(key as Key, values) : t(fallback, values);
}

// Times as people read them, in the language of the app.
import type { Language } from './language';

const LOCALES: Record<Language, string> = { en: 'en-GB', ko: 'ko-KR' };

export const clock = (at: Date, language: Language): string =>
  new Intl.DateTimeFormat(LOCALES[language], { hour: language === 'en' ? '2-digit' : 'numeric', minute: '2-digit' }).format(at);

/** 0 for today, 1 for yesterday, and so on, by calendar days of this device. */
export function daysAgo(at: Date, now: Date): number {
  const midnight = (date: Date) => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
  return Math.round((midnight(now) - midnight(at)) / 86_400_000);
}

export const fullDay = (at: Date, language: Language): string =>
  new Intl.DateTimeFormat(LOCALES[language], { weekday: 'long', month: 'long', day: 'numeric' }).format(at);

/** For lists: the time when it is today, else the date. */
export const brief = (at: Date, language: Language, now: Date): string =>
  daysAgo(at, now) === 0
    ? clock(at, language)
    : new Intl.DateTimeFormat(LOCALES[language], { month: 'short', day: 'numeric' }).format(at);

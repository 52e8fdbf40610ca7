// Turns the lines of the discovery stream into what a person reads. Pure: the texts come from the caller's language.
//
// A `step` line has the fields of the discovery engine's Step: `detail` and `why_next` are English sentences, `code`,
// `why_code` and `params` say the same for other languages.
import type { Key } from '../lang/en';
import ko from '../lang/discovery.ko';
import type { DiscoveryLine } from './api';
import { fill, type Language } from './language';

export type Location = 'inside' | 'outside' | 'manual';
export type StepResult = 'ok' | 'none' | 'failed' | 'skipped';

export interface Step {
  title: Key;
  name: string;
  result: StepResult;
  elapsedMs: number | null;
  /** What was asked, and where. */
  asked: string;
  /** What came back, and what follows. */
  sentences: Sentence[];
}

export interface Sentence {
  code: string;
  english: string;
  params: Record<string, string | number>;
}

export interface Outcome {
  location: Location;
  elapsedMs: number | null;
}

const TITLES: Record<string, Key> = {
  input: 'discovery.input',
  cache: 'discovery.cache',
  srv: 'discovery.srv',
  address: 'discovery.address',
  decision: 'discovery.decision',
  edge: 'discovery.edge',
  uds: 'discovery.uds',
  profile: 'discovery.profile',
  password: 'discovery.password',
  'sign-in': 'discovery.signin',
};

const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const number = (value: unknown): number | null => (typeof value === 'number' && Number.isFinite(value) ? value : null);

/** Reads a `step` line; null when the line is something else. */
export function readStep(line: DiscoveryLine): Step | null {
  if (line['type'] !== 'step') return null;
  const result = line['result'];
  const [what, where] = [text(line['what']), text(line['where'])];
  const params = readParams(line['params']);
  return {
    title: TITLES[text(line['kind'])] ?? 'discovery.other',
    name: shortName(what),
    result: result === 'none' || result === 'failed' || result === 'skipped' ? result : 'ok',
    elapsedMs: number(line['elapsed_ms']),
    asked: what && where ? `${what} → ${where}` : where || what,
    sentences: [
      { code: text(line['code']), english: text(line['detail']), params },
      { code: text(line['why_code']), english: text(line['why_next']), params },
    ].filter((sentence) => sentence.english !== ''),
  };
}

/** A sentence in a language, or as the engine wrote it when that language does not have it. */
export function say({ code, english, params }: Sentence, language: Language): { text: string; language: Language } {
  const own = language === 'ko' ? ko[code] : undefined;
  return own ? { text: fill(own, params), language } : { text: english, language: 'en' };
}

/** What was asked without the record type or method; of a path its last part. */
function shortName(what: string): string {
  const name = what.replace(/^(SRV|A\/AAAA|A|AAAA|GET) /, '');
  return name.includes('/') ? (name.split('?')[0]?.split('/').filter(Boolean).at(-1) ?? name) : name;
}

function readParams(value: unknown): Record<string, string | number> {
  const entries = Object.entries(value && typeof value === 'object' ? value : {});
  return Object.fromEntries(entries.filter(([, v]) => typeof v === 'string' || typeof v === 'number'));
}

/** Reads the last line, the `outcome`; null when the line is something else. */
export function readOutcome(line: DiscoveryLine): Outcome | null {
  if (line['type'] !== 'outcome') return null;
  const where = line['location'];
  const location = where === 'inside' || where === 'outside' ? where : 'manual';
  return { location, elapsedMs: number(line['elapsed_ms']) };
}

/** The sentence of an `error` line, which ends a discovery that could not finish; null when the line is something else. */
export function readTrouble(line: DiscoveryLine): string | null {
  const error = line['type'] === 'error' ? line['error'] : null;
  return error && typeof error === 'object' && 'message' in error ? text(error.message) : null;
}

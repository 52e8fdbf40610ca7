// Turns the lines of the discovery stream into what a person reads. Pure: the texts come from the caller's language.
//
// A `step` line has the fields of the discovery engine's Step: kind, what, where, result, detail, elapsed_ms, why_next.
import type { Key } from '../lang/en';
import type { DiscoveryLine } from './api';

export type Location = 'inside' | 'outside' | 'manual';
export type StepResult = 'ok' | 'none' | 'failed' | 'skipped';

export interface Step {
  title: Key;
  name: string;
  result: StepResult;
  elapsedMs: number | null;
  /** What was asked and where, what came back, what follows: in the engine's own words. */
  details: string[];
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
  const asked = what && where ? `${what} → ${where}` : where || what;
  return {
    title: TITLES[text(line['kind'])] ?? 'discovery.other',
    name: what,
    result: result === 'none' || result === 'failed' || result === 'skipped' ? result : 'ok',
    elapsedMs: number(line['elapsed_ms']),
    details: [asked, text(line['detail']), text(line['why_next'])].filter((part) => part !== ''),
  };
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

// Turns the lines of the discovery stream into what a person reads. Pure: texts come from the caller's language.
import type { Key } from '../lang/en';
import type { DiscoveryLine } from './api';

export type Location = 'inside' | 'outside' | 'manual';

export interface Step {
  title: Key;
  name: string;
  ok: boolean;
  elapsedMs: number | null;
  /** What was asked, where it went, what came back, why the next step was chosen: as the engine said it. */
  details: string[];
}

export interface Outcome {
  location: Location;
  elapsedMs: number | null;
}

const TITLES: Record<string, Key> = {
  start: 'discovery.start',
  dns: 'discovery.dns',
  https: 'discovery.https',
  http: 'discovery.https',
  signin: 'discovery.signin',
  decision: 'discovery.decision',
};

const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const number = (value: unknown): number | null => (typeof value === 'number' && Number.isFinite(value) ? value : null);

/** Reads a `step` line; null when the line is something else. */
export function readStep(line: DiscoveryLine): Step | null {
  if (line['type'] !== 'step') return null;
  const details = [line['server'], line['answer'], line['why']].map(text).filter((part) => part !== '');
  return {
    title: TITLES[text(line['kind'])] ?? 'discovery.decision',
    name: text(line['name']),
    ok: line['ok'] !== false,
    elapsedMs: number(line['elapsed_ms']),
    details,
  };
}

/** Reads the last line, the `outcome`; null when the line is something else. */
export function readOutcome(line: DiscoveryLine): Outcome | null {
  if (line['type'] !== 'outcome') return null;
  const where = line['location'];
  const location = where === 'inside' || where === 'outside' ? where : 'manual';
  return { location, elapsedMs: number(line['elapsed_ms']) };
}

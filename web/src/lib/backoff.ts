// Waiting times between attempts: doubling from half a second to half a minute, spread so that clients do not march in step.
const FIRST_MS = 500;
const LAST_MS = 30_000;

/** Milliseconds to wait before attempt number `attempt` (0 is the first retry). `random` is in [0, 1). */
export function backoff(attempt: number, random: number = Math.random()): number {
  const ceiling = Math.min(LAST_MS, FIRST_MS * 2 ** Math.min(attempt, 16));
  return Math.round(ceiling * (0.5 + random / 2));
}

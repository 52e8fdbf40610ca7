import { describe, expect, it } from 'vitest';
import { readOutcome, readStep, readTrouble, say } from '../src/lib/discovery';

const STEP = {
  type: 'step',
  kind: 'srv',
  code: 'srv-no-name',
  what: '_cisco-uds._tcp.moim.test',
  where: '127.0.0.2:10053',
  result: 'none',
  detail: 'There is no _cisco-uds._tcp.moim.test.',
  elapsed_ms: 1.5,
  why_next: 'Something new.',
  why_code: 'why-something-new',
  params: { name: '_cisco-uds._tcp.moim.test', count: 2, odd: [] },
};

describe('readStep', () => {
  it('reads a step of the engine', () => {
    const step = readStep(STEP);
    expect(step).toMatchObject({ title: 'discovery.srv', name: '_cisco-uds._tcp.moim.test', result: 'none', elapsedMs: 1.5 });
    expect(step?.asked).toBe('_cisco-uds._tcp.moim.test → 127.0.0.2:10053');
  });

  it('says it in Korean where it can, and in the words of the engine where not', () => {
    const [came, follows] = readStep(STEP)?.sentences ?? [];
    expect(came && say(came, 'ko')).toEqual({ text: '_cisco-uds._tcp.moim.test은(는) 없습니다.', language: 'ko' });
    expect(came && say(came, 'en').text).toBe('There is no _cisco-uds._tcp.moim.test.');
    expect(follows && say(follows, 'ko')).toEqual({ text: 'Something new.', language: 'en' });
  });

  it('names paths and records by what matters in them', () => {
    const named = (what: string) => readStep({ ...STEP, what })?.name;
    expect(named('SRV _collab-edge._tls.moim.test')).toBe('_collab-edge._tls.moim.test');
    expect(named('A/AAAA inside.moim.test')).toBe('inside.moim.test');
    expect(named('GET /cucm-uds/clusterUser?username=a/b')).toBe('clusterUser');
  });

  it('takes odd lines without complaint', () => {
    expect(readStep({ type: 'step', kind: 'new', elapsed_ms: 'x', result: 7 })).toMatchObject({ title: 'discovery.other', result: 'ok', elapsedMs: null, sentences: [] });
    expect(readStep({ type: 'outcome', location: 'inside' })).toBeNull();
  });
});

it('readOutcome treats an unknown place as manual', () => {
  expect(readOutcome({ type: 'outcome', location: 'outside', elapsed_ms: 3 })).toEqual({ location: 'outside', elapsedMs: 3 });
  expect(readOutcome({ type: 'outcome', location: 'moon' })?.location).toBe('manual');
  expect(readOutcome(STEP)).toBeNull();
});

it('readTrouble finds the sentence of an error line', () => {
  expect(readTrouble({ type: 'error', error: { code: 'peer-timeout', message: 'too long' } })).toBe('too long');
  expect(readTrouble(STEP)).toBeNull();
});

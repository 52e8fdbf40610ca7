import { describe, expect, it } from 'vitest';
import { deviceProblem } from '../src/lib/meeting/devices';
import { gridFor } from '../src/lib/meeting/grid';
import { meetingHref, parseJoin, parseOptions, spoken } from '../src/lib/meeting/link';
import { readMessage } from '../src/lib/meeting/signalling';

describe('parseJoin', () => {
  it('takes call IDs as people write them', () => {
    expect(parseJoin(' 700 100-200 ')).toEqual({ callId: '700100200', secret: '' });
  });

  it('takes links of any host, with and without scheme', () => {
    const target = { callId: '700100200', secret: 'a-b_c' };
    expect(parseJoin('https://edge.moim.test:18443/meeting/700100200?secret=a-b_c&name=x')).toEqual(target);
    expect(parseJoin('moim.test/meeting/700100200?secret=a-b_c')).toEqual(target);
    expect(parseJoin(`http://localhost${meetingHref(target)}`)).toEqual(target);
  });

  it('refuses everything else', () => {
    for (const text of ['', '12', 'hello', 'https://moim.test/', 'javascript:alert(1)', 'https://moim.test/meeting/a/b']) {
      expect(parseJoin(text), text).toBeNull();
    }
  });
});

it('parseOptions reads the query of a link', () => {
  expect(parseOptions('?secret=s&name=%EC%86%90%EB%8B%98&audioMuted=1&videoDisabled&skipJoinOptions=true&ice=relay')).toEqual({
    secret: 's',
    name: '손님',
    audioMuted: true,
    videoDisabled: true,
    skipJoinOptions: true,
    relayOnly: true,
  });
  expect(parseOptions('?audioMuted=0&videoDisabled=false')).toMatchObject({ audioMuted: false, videoDisabled: false, relayOnly: false });
});

it('spoken groups digits by three', () => {
  expect(spoken('700100200')).toBe('700 100 200');
  expect(spoken('12345678')).toBe('123 456 78');
  expect(spoken('abc')).toBe('abc');
});

describe('gridFor', () => {
  it('stands tiles beside each other where it is wide, above each other where it is tall', () => {
    expect(gridFor(1, 1280, 700)).toMatchObject({ columns: 1, rows: 1 });
    expect(gridFor(2, 1280, 600)).toMatchObject({ columns: 2, rows: 1 });
    expect(gridFor(2, 340, 600)).toMatchObject({ columns: 1, rows: 2 });
    expect(gridFor(4, 1280, 700)).toMatchObject({ columns: 2, rows: 2, shortRow: -1, shift: 0 });
  });

  it('moves a last row that is not full to the middle', () => {
    expect(gridFor(3, 1280, 700)).toEqual({ columns: 2, rows: 2, shortRow: 2, shift: 1 });
    expect(gridFor(5, 1280, 700)).toMatchObject({ columns: 3, rows: 2, shortRow: 3, shift: 1 });
    expect(gridFor(7, 340, 700)).toMatchObject({ columns: 2, rows: 4, shortRow: 6, shift: 1 });
  });

  it('has room for everybody before the stage has been measured', () => {
    for (let count = 1; count < 30; count += 1) {
      const { columns, rows } = gridFor(count, 0, 0);
      expect(columns * rows).toBeGreaterThanOrEqual(count);
    }
  });
});

describe('readMessage', () => {
  it('reads the messages of the protocol', () => {
    expect(readMessage('{"type":"offer","seq":1,"sdp":"v=0"}')).toEqual({ type: 'offer', seq: 1, sdp: 'v=0', publish: {}, tracks: [] });
    expect(readMessage('{"type":"error","code":"full","message":"no"}')).toEqual({ type: 'error', code: 'full', message: 'no' });
    expect(readMessage('{"type":"joined","participantId":"1","space":{},"participants":[]}')).toMatchObject({ iceServers: [] });
  });

  it('drops what it cannot use', () => {
    for (const text of ['', 'null', '[]', '{}', '{"type":"offer"}', '{"type":"participant","participant":{}}', '{"type":"new"}']) {
      expect(readMessage(text), text).toBeNull();
    }
  });
});

it('deviceProblem names the reasons of browsers', () => {
  expect(deviceProblem(new DOMException('', 'NotAllowedError'))).toBe('denied');
  expect(deviceProblem(new DOMException('', 'NotFoundError'))).toBe('missing');
  expect(deviceProblem(new DOMException('', 'NotReadableError'))).toBe('busy');
  expect(deviceProblem('odd')).toBe('failed');
});

import { describe, expect, it } from 'vitest';
import { readNdjson } from '../src/lib/ndjson';

function stream(bytes: Uint8Array, size: number): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
}

async function all(text: string, size: number): Promise<unknown[]> {
  const found = [];
  for await (const value of readNdjson(stream(new TextEncoder().encode(text), size))) found.push(value);
  return found;
}

describe('readNdjson', () => {
  it('reads lines however they are cut, characters of several bytes too', async () => {
    const text = '{"a":"안녕 👋"}\n\n{"b":[1,2]}\n"last"';
    for (let size = 1; size < 20; size += 1) expect(await all(text, size)).toEqual([{ a: '안녕 👋' }, { b: [1, 2] }, 'last']);
  });

  it('refuses what is not JSON, and lines without end', async () => {
    await expect(all('{"a":1}\nnope\n', 64)).rejects.toThrow(SyntaxError);
    await expect(all(`"${'x'.repeat(300_000)}`, 65_536)).rejects.toThrow('too long');
  });
});

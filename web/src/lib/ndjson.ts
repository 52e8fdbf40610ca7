// Reads newline-delimited JSON from a byte stream, whatever the chunks are cut like.
const MAX_LINE = 256 * 1024;

/** Yields one parsed value per non-empty line. Throws SyntaxError on a line that is not JSON or is too long. */
export async function* readNdjson(stream: ReadableStream<Uint8Array>): AsyncGenerator<unknown> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let pending = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      pending += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const lines = pending.split('\n');
      pending = done ? '' : (lines.pop() ?? '');
      for (const line of lines) if (line.trim()) yield JSON.parse(line);
      if (done) return;
      if (pending.length > MAX_LINE) throw new SyntaxError('a line of the answer is too long');
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

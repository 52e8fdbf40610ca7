// How a stage of tiles is divided.
const WIDEST = 16 / 9;
// A camera's picture is wide: on a wide stage no tile gets narrower than a square, on an upright one (a phone) it may.
const NARROWEST = { wide: 1, upright: 3 / 4 };

export interface Grid {
  columns: number;
  rows: number;
  /** Index of the first tile of a last row that is not full, and how many half columns it is moved in; -1 when all are. */
  shortRow: number;
  shift: number;
}

/** The grid with the largest tiles for `count` of them on a stage of `width` × `height` pixels. */
export function gridFor(count: number, width: number, height: number): Grid {
  const narrowest = width >= height ? NARROWEST.wide : NARROWEST.upright;
  let best = shape(count, 1);
  let area = -1;
  for (let columns = 1; columns <= count; columns += 1) {
    const candidate = shape(count, columns);
    const tileWidth = Math.min(width / columns, (height / candidate.rows) * WIDEST);
    const tileHeight = Math.min(height / candidate.rows, tileWidth / narrowest);
    if (tileWidth * tileHeight > area + 1) {
      area = tileWidth * tileHeight;
      best = candidate;
    }
  }
  return best;
}

function shape(count: number, columns: number): Grid {
  const rows = Math.max(1, Math.ceil(count / columns));
  const inLast = count - (rows - 1) * columns;
  const full = inLast === columns;
  return { columns, rows, shortRow: full ? -1 : (rows - 1) * columns, shift: full ? 0 : columns - inLast };
}

// How many columns a stage of tiles gets.
const ASPECT = 16 / 9;
const TALLEST = 3 / 4;

export interface Grid {
  columns: number;
  rows: number;
}

/**
 * The grid with the largest tiles for `count` of them on a stage of `width` × `height` pixels, when a tile may have any
 * shape from 16:9 to 3:4 (upright, for phones).
 */
export function gridFor(count: number, width: number, height: number): Grid {
  let best: Grid = { columns: 1, rows: Math.max(1, count) };
  let area = -1;
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const tileWidth = Math.min(width / columns, (height / rows) * ASPECT);
    const tileHeight = Math.min(height / rows, tileWidth / TALLEST);
    if (tileWidth * tileHeight > area + 1) {
      area = tileWidth * tileHeight;
      best = { columns, rows };
    }
  }
  return best;
}

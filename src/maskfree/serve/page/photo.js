// Photos as the page works on them, and score maps ready for labels.

import { decodeScores } from "./labels.js";

// Pixels that are worked on; a larger photo is shown and edited smaller.
const MAX_PIXELS = 2_000_000;

/** Decode a photo upright, on white; throws an Error in words. */
export async function readPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} cannot be shown: it is damaged, or no photo that a browser reads.`);
  }
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return { file, name: file.name, width, height, pixels: context.getImageData(0, 0, width, height).data };
}

/** Decode an answer of /v1/scores for words as they were typed, with the range of its best scores. */
export function prepareGrid(grid, words) {
  const values = decodeScores(grid.scores), cells = grid.rows * grid.columns;
  let low = Infinity, high = -Infinity;
  for (let cell = 0; cell < cells; cell++) {
    let best = -Infinity;
    for (let place = cell; place < values.length; place += cells) best = Math.max(best, values[place]);
    low = Math.min(low, best);
    high = Math.max(high, best);
  }
  return { ...grid, values, low, high, words };
}

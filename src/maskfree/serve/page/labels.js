// From a score map to labels and regions: everything that needs no network.
// All maps are flat arrays, row by row.

export const UNLABELED = 255;

/** Decode little-endian float16 numbers in base64. */
export function decodeScores(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const halves = new Uint16Array(bytes.buffer);
  const scores = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    const sign = halves[i] & 0x8000 ? -1 : 1;
    const exponent = (halves[i] >> 10) & 31;
    const fraction = halves[i] & 1023;
    scores[i] = exponent
      ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024)
      : sign * 2 ** -14 * (fraction / 1024);
  }
  return scores;
}

/** Cells before and after each pixel center, and the weight of the latter. */
function neighbors(pixels, extent, cells) {
  const before = new Int32Array(pixels), after = new Int32Array(pixels);
  const weight = new Float32Array(pixels);
  for (let i = 0; i < pixels; i++) {
    const center = Math.min(cells - 1, Math.max(0, ((i + 0.5) * extent) / pixels - 0.5));
    before[i] = Math.floor(center);
    after[i] = Math.min(cells - 1, before[i] + 1);
    weight[i] = center - before[i];
  }
  return { before, after, weight };
}

/**
 * Label every pixel with the class of the highest score, enlarged bilinearly.
 *
 * grid: answer of /v1/scores, with `values` as decodeScores returns them.
 * classes: indices of the classes that compete; the others win nowhere.
 * threshold: null, or the score below which a pixel is background, whose id follows the words.
 * Returns labels, the winning scores, and the probability of the winner among the classes.
 */
export function labelMap(grid, width, height, classes, threshold) {
  const { rows, columns, values, levels, scale } = grid;
  const across = neighbors(width, grid.extent[1], columns);
  const down = neighbors(height, grid.extent[0], rows);
  const labels = new Uint8Array(width * height).fill(UNLABELED);
  const best = new Float32Array(width * height).fill(-Infinity);
  const total = new Float32Array(width * height);
  const line = new Float32Array(columns);

  for (const index of classes) {
    const level = threshold === null ? levels[index] : 0;
    const start = index * rows * columns;
    for (let y = 0; y < height; y++) {
      // Between two rows of cells first, then across.
      const above = start + down.before[y] * columns, below = start + down.after[y] * columns;
      for (let x = 0; x < columns; x++) {
        line[x] = values[above + x] + down.weight[y] * (values[below + x] - values[above + x]) - level;
      }
      let place = y * width;
      for (let x = 0; x < width; x++, place++) {
        const left = line[across.before[x]];
        const score = left + across.weight[x] * (line[across.after[x]] - left);
        // The sum of a softmax, kept relative to the highest score so far.
        if (score > best[place]) {
          total[place] = 1 + total[place] * (scale ? Math.exp(scale * (best[place] - score)) : 1);
          best[place] = score;
          labels[place] = index;
        } else if (scale) {
          total[place] += Math.exp(scale * (score - best[place]));
        }
      }
    }
  }

  if (threshold !== null) {
    const background = grid.num_words;
    for (let i = 0; i < labels.length; i++) if (best[i] < threshold) labels[i] = background;
  }
  // Classes that never win take part in the softmax: "none of the words", and the threshold.
  const others = [grid.none, threshold].filter((score) => score !== null);
  const confidence = new Float32Array(labels.length);
  for (let i = 0; i < labels.length; i++) {
    let sum = total[i];
    for (const score of others) sum += Math.exp(scale * (score - best[i]));
    confidence[i] = scale ? 1 / sum : Math.max(0, best[i]);
  }
  return { labels, best, confidence };
}

/** Connected components of equal labels: id of each pixel's component, and their sizes. */
export function components(labels, width, height) {
  const owner = new Int32Array(labels.length).fill(-1);
  const stack = new Int32Array(labels.length);
  const sizes = [], firsts = [];
  for (let first = 0; first < labels.length; first++) {
    if (owner[first] >= 0) continue;
    const label = labels[first], id = sizes.length;
    let size = 0, top = 0;
    stack[top++] = first;
    owner[first] = id;
    while (top) {
      const place = stack[--top], x = place % width;
      size++;
      const near = [x ? place - 1 : -1, x < width - 1 ? place + 1 : -1, place - width, place + width];
      for (const next of near) {
        if (next >= 0 && next < labels.length && owner[next] < 0 && labels[next] === label) {
          owner[next] = id;
          stack[top++] = next;
        }
      }
    }
    sizes.push(size);
    firsts.push(first);
  }
  return { owner, sizes, firsts };
}

/** Give components below an area to the neighbor with the longest common border, smallest first. */
export function mergeSmall(labels, width, height, minArea) {
  if (minArea <= 1) return labels;
  const { owner, sizes, firsts } = components(labels, width, height);
  const borders = sizes.map(() => new Map());
  const touch = (a, b) => {
    if (a === b) return;
    borders[a].set(b, (borders[a].get(b) ?? 0) + 1);
    borders[b].set(a, (borders[b].get(a) ?? 0) + 1);
  };
  for (let i = 0; i < labels.length; i++) {
    if ((i + 1) % width) touch(owner[i], owner[i + 1]);
    if (i + width < labels.length) touch(owner[i], owner[i + width]);
  }

  // A merged component stands for both: follow `into` to the one that is left.
  const into = sizes.map((_, id) => id);
  const root = (id) => {
    while (into[id] !== id) id = into[id] = into[into[id]];
    return id;
  };
  const area = [...sizes], label = firsts.map((first) => labels[first]);
  const small = sizes.map((_, id) => id).filter((id) => sizes[id] < minArea);
  small.sort((a, b) => sizes[a] - sizes[b] || a - b);
  for (const id of small) {
    const own = root(id);
    if (area[own] >= minArea) continue;
    const lengths = new Map();
    for (const [other, length] of borders[own]) {
      const to = root(other);
      if (to !== own) lengths.set(to, (lengths.get(to) ?? 0) + length);
    }
    const [winner] = [...lengths].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0] ?? [];
    if (winner === undefined) continue;
    into[own] = winner;
    area[winner] += area[own];
    for (const [other, length] of borders[own]) {
      borders[winner].set(other, (borders[winner].get(other) ?? 0) + length);
    }
  }

  const merged = new Uint8Array(labels.length);
  for (let i = 0; i < labels.length; i++) merged[i] = label[root(owner[i])];
  return merged;
}

/** Regions of a label map, the largest first, without those of unlabeled pixels. */
export function regionsOf(labels, confidence, width, height) {
  const { owner, sizes, firsts } = components(labels, width, height);
  const regions = sizes.map((size, id) => ({
    id, size, label: labels[firsts[id]], confidence: 0, x: 0, y: 0,
  }));
  for (let i = 0; i < labels.length; i++) {
    const region = regions[owner[i]];
    region.confidence += confidence[i] / region.size;
    region.x += (i % width) / region.size;
    region.y += Math.floor(i / width) / region.size;
  }
  // Words are written on a pixel of the region, the one nearest to its center.
  const nearest = new Float64Array(sizes.length).fill(Infinity);
  const middle = regions.map(({ x, y }) => [x, y]);
  for (let i = 0; i < labels.length; i++) {
    const id = owner[i], x = i % width, y = Math.floor(i / width);
    const distance = (x - middle[id][0]) ** 2 + (y - middle[id][1]) ** 2;
    if (distance < nearest[id]) {
      nearest[id] = distance;
      regions[id].x = x;
      regions[id].y = y;
    }
  }
  const shown = regions.filter((region) => region.label !== UNLABELED);
  return { owner, regions: shown.sort((a, b) => b.size - a.size || a.id - b.id) };
}

/** Run lengths of a map, as pairs of value and length in 32 bits. */
export function runs(labels) {
  const pairs = [];
  for (let start = 0; start < labels.length; ) {
    let stop = start + 1;
    while (stop < labels.length && labels[stop] === labels[start]) stop++;
    pairs.push(labels[start], stop - start);
    start = stop;
  }
  return new Uint32Array(pairs);
}

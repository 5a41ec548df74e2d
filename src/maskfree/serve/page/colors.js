// Colors of words. "safe" ones can be told apart with any kind of color vision: those of Okabe and
// Ito, then the muted ones of Paul Tol; after these the hue goes round.

const SAFE = [
  "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
  "#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499",
];

function parse(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

/** Red, green and blue of a hue in degrees. */
function ofHue(hue, lightness) {
  const channel = (shift) => {
    const k = (shift + hue / 30) % 12;
    return Math.round(255 * (lightness - 0.35 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

/** Color of each of a number of words; `files` are those of saved files, if they are wanted. */
export function colorsOf(count, files) {
  const colors = [];
  for (let i = 0; i < count; i++) {
    if (files && i < files.length) colors.push(files[i]);
    else if (!files && i < SAFE.length) colors.push(parse(SAFE[i]));
    else colors.push(ofHue((i * 137.5) % 360, i % 2 ? 0.4 : 0.65));
  }
  return colors;
}

export function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

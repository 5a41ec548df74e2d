// Lists beside the photo: chips of words, the legend, and the regions.

import { css } from "./colors.js";

const MAX_REGIONS = 60;
const element = (id) => document.getElementById(id);

function swatch(color) {
  const box = document.createElement("span");
  box.className = "swatch";
  box.style.background = color ? css(color) : "#000";
  return box;
}

function text(tag, content) {
  const made = document.createElement(tag);
  made.textContent = content;
  return made;
}

/** Show the words; `remove` is told which one to take away. */
export function showChips(words, remove) {
  const items = words.map((word, place) => {
    const item = document.createElement("li");
    const [name, ...synonyms] = word.split("/").map((part) => part.trim());
    item.append(text("span", name));
    if (synonyms.length) item.append(text("small", synonyms.join(", ")));
    const button = text("button", "×");
    button.type = "button";
    button.setAttribute("aria-label", `Remove ${name}`);
    button.addEventListener("click", () => {
      remove(word);
      // The focus goes to the next chip, or to where words are added.
      const left = element("chips").querySelectorAll("button");
      (left[Math.min(place, left.length - 1)] ?? element("words-input")).focus();
    });
    item.append(button);
    return item;
  });
  element("chips").replaceChildren(...items);
  element("no-words").hidden = words.length > 0;
}

/** Show the names that occur with their areas; a box hides one. */
export function showLegend(view, { colors, hidden, removed }, onToggle) {
  const areas = view.areas(), focused = document.activeElement?.dataset?.name;
  const items = [];
  view.names.forEach((name, label) => {
    const isBackground = label === view.grid.num_words;
    if ((isBackground && !areas[label]) || removed.has(view.grid.words[label])) return;
    const item = document.createElement("li"), row = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = !hidden.has(name);
    box.dataset.name = name;
    box.disabled = isBackground;
    box.addEventListener("change", () => onToggle(name, box.checked));
    row.append(box, swatch(isBackground ? null : colors[label]), name);
    item.append(row, text("output", `${(100 * areas[label]).toFixed(1)} %`));
    items.push(item);
  });
  element("legend").replaceChildren(...items);
  if (focused !== undefined) {
    [...element("legend").querySelectorAll("input")].find((box) => box.dataset.name === focused)?.focus();
  }
}

/** Show the largest regions; `onPick` is told which one to change. */
export function showRegions(view, { colors }, onPick) {
  const background = view.grid.num_words;
  const regions = view.regions.filter((region) => region.label !== background);
  const items = regions.slice(0, MAX_REGIONS).map((region) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const area = (100 * region.size) / view.labels.length;
    button.type = "button";
    button.append(
      swatch(colors[region.label]),
      text("span", view.names[region.label]),
      text("small", `${area < 0.1 ? "< 0.1" : area.toFixed(1)} %, ${Math.round(100 * region.confidence)} % sure`),
    );
    button.addEventListener("click", () => onPick(region));
    item.append(button);
    return item;
  });
  if (regions.length > MAX_REGIONS) {
    items.push(text("li", `and ${regions.length - MAX_REGIONS} smaller ones`));
  }
  element("regions").replaceChildren(...items);
}

// Words that are named; there may be over a hundred.
const MAX_NAMED = 8;

/** Say with which words those of the page compete. */
export function showCompeting(words) {
  const box = element("competing"), more = words.length > MAX_NAMED ? " and others" : "";
  box.hidden = !words.length;
  box.textContent = `Your words compete with ${words.slice(0, MAX_NAMED).join(", ")}${more}.`;
}

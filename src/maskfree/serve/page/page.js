// The page: words, photo, settings. What needs the network is asked anew; all else is drawn anew.

import { startBatch } from "./batch.js";
import { ask } from "./client.js";
import { colorsOf } from "./colors.js";
import { takeDrops } from "./drops.js";
import { startExport } from "./export.js";
import { showChips, showCompeting, showLegend, showRegions } from "./lists.js";
import { loadModels } from "./models.js";
import { prepareGrid, readPhoto } from "./photo.js";
import { editRegion } from "./regions.js";
import { startTabs, startTheme } from "./tabs.js";
import { View } from "./view.js";

const WAIT_MS = 250;
// Fewer words compete with others unless a rule is chosen, as `default_rule` of the package says.
const ENOUGH_WORDS = 3;
const element = (id) => document.getElementById(id);

const state = {
  words: [], hidden: new Set(), edits: [], photo: null, views: [], models: [], fileColors: [],
  request: null, timer: null, frame: 0,
};

// ---------------------------------------------------------------- settings

function settings() {
  const removed = new Set();
  for (const view of state.views) {
    for (const word of view.grid?.words ?? []) if (!state.words.includes(word)) removed.add(word);
  }
  const value = Number(element("threshold").value), area = Number(element("area").value);
  const extra = [...new Set(state.edits.map((edit) => edit.name).filter((name) => name !== null))];
  const namesOf = (grid) => {
    const names = [...grid.names.slice(0, grid.num_words), "background"];
    return [...names, ...extra.filter((name) => !names.includes(name))];
  };
  const first = state.views[0]?.grid;
  const names = first ? namesOf(first) : [];
  return {
    removed, namesOf, names,
    edits: state.edits,
    hidden: state.hidden,
    opacity: Number(element("opacity").value) / 100,
    minArea: area ? 10 ** (-4 + area / 20) : 0,
    showNames: element("names").checked,
    colors: colorsOf(names.length, element("palette").value === "files" ? state.fileColors : null),
    threshold: (grid) => (value ? grid.low + ((grid.high - grid.low) * value) / 100 : null),
  };
}

/** Background rule of the scores. A threshold takes the place of words that mean none of the classes. */
function rule() {
  if (Number(element("threshold").value)) return "none";
  return element("background").value || (state.words.length < ENOUGH_WORDS ? "" : "none");
}

function isScored() {
  return state.views.length > 0 && state.views.every((view) => view.grid?.rule === rule());
}

/** Fields of a request for the words of the page; null after an error was shown. */
function fields(model, background = rule()) {
  if (!state.words.length) {
    fail("Add a word first: what is in the photo?");
    return null;
  }
  return {
    words: state.words,
    model,
    background,
    refine: element("edges").checked ? "regions" : "none",
  };
}

// ---------------------------------------------------------------- messages

function tell(text) {
  element("status").textContent = text;
}

function fail(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
  if (text) tell("");
}

// ---------------------------------------------------------------- words

function changeWords(words) {
  state.words = words;
  const known = isScored() && state.views.every((view) => {
    return words.every((word) => view.grid.words.includes(word));
  });
  // Fewer words need no network, unless they compete with others.
  if (known && words.length && rule()) refresh();
  else scoreSoon();
  refreshChips();
}

function refreshChips() {
  showChips(state.words, (word) => changeWords(state.words.filter((each) => each !== word)));
}

function addWords(text) {
  const words = text.split(",").map((word) => word.trim()).filter(Boolean);
  const taken = new Set(state.words.flatMap((word) => word.toLowerCase().split("/")));
  for (const word of words) {
    const parts = word.toLowerCase().split("/").map((part) => part.trim());
    const twice = parts.find((part) => taken.has(part));
    if (twice !== undefined) return fail(`The word "${twice}" is there already.`);
    parts.forEach((part) => taken.add(part));
  }
  fail("");
  if (words.length) changeWords([...state.words, ...words]);
}

// ---------------------------------------------------------------- photo

async function openPhoto(file, words = null) {
  fail("");
  try {
    state.photo = await readPhoto(file);
  } catch (error) {
    return fail(error.message);
  }
  state.edits = [];
  state.hidden.clear();
  if (words) state.words = words;
  refreshChips();
  makeViews();
  score();
}

function makeViews() {
  if (!state.photo) return;
  const models = [element("model").value, element("compare").value].filter(Boolean);
  const listeners = {
    onHover: (view, text) => {
      if (text !== null) tell(text);
      draw();
    },
    onPick: edit,
  };
  state.views = models.map((model) => new View(state.photo, model, listeners));
  if (!state.views.length) return;
  state.views[0].editable = true;
  element("views").replaceChildren(...state.views.map((view) => view.figure));
  element("views").hidden = false;
  element("drop").hidden = true;
  element("another").hidden = false;
  draw();
}

function closePhoto() {
  state.request?.abort();
  Object.assign(state, { photo: null, views: [], edits: [] });
  for (const id of ["views", "another", "undo", "legend-card", "regions-card", "export-card"]) {
    element(id).hidden = true;
  }
  element("drop").hidden = false;
  fail("");
  tell("");
  element("file").focus();
}

// ---------------------------------------------------------------- scores

function scoreSoon() {
  clearTimeout(state.timer);
  state.timer = setTimeout(score, WAIT_MS);
}

async function score() {
  clearTimeout(state.timer);
  state.request?.abort();
  if (!state.photo || !state.views.length) return;
  const wanted = state.views.map((view) => fields(view.model));
  if (wanted.includes(null)) return;

  const request = (state.request = new AbortController());
  const started = performance.now();
  fail("");
  tell("Labeling …");
  element("views").classList.add("busy");
  try {
    const onWait = () => tell("The server is busy. Waiting for a place …");
    const grids = await Promise.all(wanted.map(async (form) => {
      const answer = await ask("/v1/scores", { ...form, photo: state.photo.file }, { signal: request.signal, onWait });
      return { ...prepareGrid(await answer.json(), form.words), rule: form.background };
    }));
    state.views.forEach((view, i) => (view.grid = grids[i]));
    refresh();
    tell(`Labeled in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  } catch (error) {
    if (!request.signal.aborted) fail(error.message);
  } finally {
    if (state.request === request) element("views").classList.remove("busy");
  }
}

// ---------------------------------------------------------------- drawing

function refresh() {
  const now = settings(), view = state.views[0];
  for (const each of state.views) each.update(now);
  if (!view?.grid) return;
  const value = now.threshold(view.grid);
  element("opacity-out").textContent = `${Math.round(100 * now.opacity)} %`;
  element("threshold-out").textContent = value === null ? "off" : value.toFixed(2);
  element("area-out").textContent = now.minArea ? `${(100 * now.minArea).toPrecision(2)} %` : "any";
  for (const id of ["legend-card", "regions-card", "export-card"]) element(id).hidden = false;
  element("undo").hidden = !state.edits.length;
  showCompeting(view.grid.background?.words ?? []);
  showLegend(view, now, (name, isShown) => {
    if (isShown) state.hidden.delete(name);
    else state.hidden.add(name);
    draw();
  });
  showRegions(view, now, (region) => edit(view, region));
  draw(now);
}

function draw(now = null) {
  cancelAnimationFrame(state.frame);
  state.frame = requestAnimationFrame(() => {
    const chosen = now ?? settings();
    for (const view of state.views) view.draw({ ...chosen, names: view.names });
  });
}

let pending = 0;
function refreshSoon() {
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(refresh);
}

async function edit(view, region) {
  const name = await editRegion(view, region, settings());
  if (name === undefined) return;
  state.edits.push({ pixels: view.pixelsOf(region), name });
  refresh();
  tell(name === null ? "The region is deleted." : `The region is ${name} now.`);
}

// ---------------------------------------------------------------- start

function listen() {
  element("words-form").addEventListener("submit", (event) => {
    event.preventDefault();
    addWords(element("words-input").value);
    if (element("error").hidden) element("words-input").value = "";
  });
  element("words-input").addEventListener("input", (event) => {
    if (!event.target.value.endsWith(",")) return;
    addWords(event.target.value);
    if (element("error").hidden) event.target.value = "";
  });
  element("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) openPhoto(file);
  });
  for (const button of document.querySelectorAll("[data-example]")) {
    button.addEventListener("click", async () => {
      const name = `${button.dataset.example}.jpg`;
      const answer = await ask(`/static/examples/${name}`);
      const file = new File([await answer.blob()], name, { type: "image/jpeg" });
      openPhoto(file, button.dataset.words.split(","));
    });
  }
  element("another").addEventListener("click", closePhoto);
  element("undo").addEventListener("click", () => {
    state.edits.pop();
    refresh();
    tell("The last change is undone.");
  });
  for (const id of ["opacity", "threshold", "area", "names", "palette"]) {
    element(id).addEventListener("input", refreshSoon);
  }
  element("threshold").addEventListener("input", () => {
    if (!isScored()) scoreSoon();
  });
  for (const id of ["model", "compare"]) {
    element(id).addEventListener("change", () => {
      makeViews();
      score();
    });
  }
  for (const id of ["background", "edges"]) element(id).addEventListener("change", score);
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file) openPhoto(file);
  });
}

startTheme();
startTabs();
listen();
takeDrops(openPhoto, startBatch(() => fields(element("model").value, element("background").value), fail), fail);
startExport({ state, settings, fields, fail, tell });
refreshChips();
await loadModels(state, fail);
document.documentElement.dataset.ready = "yes";

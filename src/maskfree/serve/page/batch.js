// Many photos: two requests at a time, a bar, and a zip of label maps.

import { ask, saveFile } from "./client.js";
import { zip } from "./zip.js";

const AT_ONCE = 2;
const element = (id) => document.getElementById(id);

/** Listen to the batch tab; `options()` gives the fields of a request, `fail` shows an error. */
export function startBatch(options, fail) {
  let done = [], stop = null, names = [];

  const line = (file, text, isBad = false) => {
    const item = document.createElement("li"), name = document.createElement("span");
    const told = document.createElement("span");
    name.textContent = file.name;
    told.textContent = text;
    told.className = isBad ? "bad" : "";
    item.append(name, told);
    element("batch-list").append(item);
  };

  async function label(file, fields) {
    try {
      const answer = await ask("/v1/segment", { ...fields, photo: file, format: "png" }, { signal: stop.signal });
      names = JSON.parse(decodeURIComponent(answer.headers.get("x-maskfree-names")));
      done.push([file, new Uint8Array(await answer.arrayBuffer())]);
      line(file, "done");
      return true;
    } catch (error) {
      if (!stop.signal.aborted) line(file, error.message, true);
      return false;
    }
  }

  async function run(files) {
    const fields = options();
    if (!fields) return;
    if (!files.length) return fail("None of these files is a photo.");
    done = [];
    stop = new AbortController();
    element("batch-list").replaceChildren();
    element("batch-save").hidden = true;
    element("batch-stop").hidden = false;
    const bar = element("batch-bar");
    Object.assign(bar, { value: 0, max: files.length });
    let good = 0, tried = 0;
    const started = performance.now();

    const queue = [...files];
    const worker = async () => {
      while (queue.length && !stop.signal.aborted) {
        // Another worker counts while this one waits.
        const isGood = await label(queue.shift(), fields);
        good += isGood;
        tried++;
        bar.value = tried;
        const left = ((performance.now() - started) / tried) * (files.length - tried) / 1000;
        element("batch-status").textContent =
          `${tried} of ${files.length} photos, about ${Math.ceil(left)} s left`;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));

    element("batch-stop").hidden = true;
    element("batch-save").hidden = !good;
    const bad = tried - good;
    element("batch-status").textContent = stop.signal.aborted
      ? `Stopped: ${good} of ${files.length} photos are labeled.`
      : `${good} of ${files.length} photos are labeled${bad ? `, ${bad} could not be` : ""}.`;
  }

  function save() {
    const taken = new Set(), entries = [["names.json", new TextEncoder().encode(JSON.stringify(names))]];
    for (const [file, bytes] of done) {
      // Photos of one name from several folders get numbers.
      const stem = file.name.replace(/\.[^.]*$/, "");
      let name = `${stem}.png`;
      for (let number = 2; taken.has(name.toLowerCase()); number++) name = `${stem}-${number}.png`;
      taken.add(name.toLowerCase());
      entries.push([`labels/${name}`, bytes]);
    }
    saveFile(zip(entries), "labels.zip");
  }

  element("batch-files").addEventListener("change", (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    run(files);
  });
  element("batch-stop").addEventListener("click", () => stop.abort());
  element("batch-save").addEventListener("click", save);
  return run;
}

// Saving labels in the formats of annotation tools, and the command that gives the same.

import { ask, saveFile } from "./client.js";
import { runs, UNLABELED } from "./labels.js";

const element = (id) => document.getElementById(id);
const quoted = (word) => (/^[\w./:=,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
const literal = (word) => JSON.stringify(word);

/** Listen to the card "Save". */
export function startExport({ state, settings, fields, fail, tell }) {
  function request() {
    const view = state.views[0];
    const form = fields(view.model), threshold = settings().threshold(view.grid);
    // A threshold takes the place of the words that mean none of the classes.
    if (threshold !== null) form.background = `threshold:${threshold.toFixed(3)}`;
    return form;
  }

  async function save() {
    const view = state.views[0], { names, colors } = settings();
    const format = element("format");
    tell("Saving …");
    try {
      const answer = await ask("/v1/export", {
        photo: state.photo.file,
        format: format.value,
        width: state.photo.width,
        height: state.photo.height,
        background: view.grid.num_words,
        names: JSON.stringify(names),
        colors: JSON.stringify(colors),
        runs: new Blob([runs(view.labels)]),
      });
      const stem = state.photo.name.replace(/\.[^.]*$/, "") || "photo";
      const suffix = answer.headers.get("content-type") === "image/png" ? "png" : "zip";
      saveFile(await answer.blob(), `${stem}.${format.value}.${suffix}`.replace(".png.png", ".labels.png"));
      const free = view.labels.includes(UNLABELED) ? " Deleted regions are 255: unlabeled." : "";
      tell(`Saved as ${format.selectedOptions[0].text}.${free}`);
    } catch (error) {
      fail(error.message);
    }
  }

  async function copy(text) {
    element("copied").textContent = text;
    element("copied").hidden = false;
    try {
      await navigator.clipboard.writeText(text);
      tell("Copied.");
    } catch {
      tell("The browser does not let us copy: the text is below the buttons.");
    }
  }

  function python() {
    const { words, model, background, refine } = request();
    const options = [`words=[${words.map(literal).join(", ")}]`];
    if (background) options.push(`background=${literal(background)}`);
    const load = `maskfree.load(${literal(model)})`;
    const chosen = refine === "none"
      ? load
      : `(model := ${load}).with_inference(model.inference.changed(refine=${literal(refine)}))`;
    return `import maskfree\nresult = ${chosen}(${literal(state.photo.name)}, ${options.join(", ")})`;
  }

  function command() {
    const { words, model, background, refine } = request();
    const parts = ["maskfree segment", quoted(state.photo.name), "--words", ...words.map(quoted)];
    if (model !== "pocket") parts.push("--model", quoted(model));
    if (background) parts.push("--background", quoted(background));
    if (refine !== "none") parts.push("--refine", refine);
    return [...parts, "--out out"].join(" ");
  }

  element("save").addEventListener("click", save);
  element("copy-python").addEventListener("click", () => copy(python()));
  element("copy-command").addEventListener("click", () => copy(command()));
}

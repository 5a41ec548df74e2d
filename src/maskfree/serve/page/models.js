// Lists of models and formats, as the server has them.

import { ask } from "./client.js";

const element = (id) => document.getElementById(id);

/** Fill the lists of the page, and the models and colors of its state; `fail` shows an error. */
export async function loadModels(state, fail) {
  try {
    const answer = await (await ask("/v1/models")).json();
    state.models = answer.models;
    state.fileColors = answer.colors;
    const none = new Option("nothing", "");
    element("compare").replaceChildren(none);
    for (const { name } of answer.models) {
      element("model").append(new Option(name, name));
      element("compare").append(new Option(name, name));
    }
    element("format").replaceChildren(...answer.formats.map(({ name, title }) => new Option(title, name)));
    element("edges").disabled = !answer.edges;
    if (!answer.edges) element("edges").parentElement.append(" – needs the extra “regions”");
  } catch (error) {
    fail(error.message);
  }
}

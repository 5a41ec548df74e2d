// The dialog in which a region is renamed or deleted.

import { UNLABELED } from "./labels.js";

const element = (id) => document.getElementById(id);

/** Ask what to do with a region: a name, null to delete it, undefined to leave it. */
export function editRegion(view, region, { names }) {
  const dialog = element("region-dialog"), input = element("region-name");
  const name = region.label === UNLABELED ? "" : view.names[region.label];
  element("region-title").textContent = name ? `Region: ${name}` : "A region without a word";
  element("region-words").replaceChildren(...names.map((each) => new Option(each, each)));
  input.value = name;
  dialog.returnValue = "cancel";
  dialog.showModal();
  input.select();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      const typed = input.value.trim().replace(/\s+/g, " ");
      if (dialog.returnValue === "delete") done(name ? null : undefined);
      else if (dialog.returnValue === "rename" && typed && typed !== name) done(typed);
      else done(undefined);
    }, { once: true });
  });
}

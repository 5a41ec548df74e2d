// Files that are dropped anywhere on the page, for the tab that is shown.

const element = (id) => document.getElementById(id);

export function takeDrops(openPhoto, runBatch, fail) {
  const isBatch = () => !element("batch-panel").hidden;
  const area = () => element(isBatch() ? "batch-drop" : "drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    area().classList.add("over");
  });
  document.addEventListener("dragleave", () => area().classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    area().classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (isBatch()) runBatch(files);
    else if (files.length) openPhoto(files[0]);
    else fail("That was no file: drop a photo from a folder.");
  });
}

"""Format `huggingface`: a folder that `datasets.load_dataset("imagefolder", data_dir=...)` reads.

Own code: a line of JSON for each photo. `datasets` writes its own Arrow or Parquet, with the photos
copied into it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from maskfree.files.atomic import replace_text
from maskfree.label.formats.index_maps import in_order, palette_bytes, renumbered, write_map
from maskfree.label.formats.json_stream import compact, text_file
from maskfree.label.formats.photo_files import PhotoFiles
from maskfree.label.formats.splits import is_validation
from maskfree.label.labeled import UNLABELED, LabelClass


def write_hugging_face(classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path) -> None:
    """Write train/ and validation/ with metadata.jsonl, whose columns are `image` and `label`.

    Ids start at 0 and 255 is unlabeled, as SegFormer's training expects; id2label.json names them.

    Args:
        classes: Classes of the data set.
        photos: Photos with their labels.
        folder: Empty folder to fill.

    Raises:
        OSError: A file cannot be written.
    """
    numbered = in_order(classes, first_id=0)
    ids = {each.name: each.id for each in numbered}
    colors = palette_bytes(numbered)
    replace_text(folder / "id2label.json", _id2label(numbered))

    # A split without photos has no folder: `datasets` refuses an empty one.
    lists: dict[str, TextIO] = {}
    with ExitStack() as stack:
        for photo in photos:
            split = "validation" if is_validation(photo.labeled.name) else "train"
            if split not in lists:
                path = folder / split / "metadata.jsonl"
                lists[split] = stack.enter_context(text_file(path))

            name = _visible(photo.name)
            row = {
                "file_name": f"images/{name}{photo.suffix}",
                "label_file_name": f"labels/{name}.png",
                "name": photo.name,
            }
            photo.put(folder / split / row["file_name"])
            labels = renumbered(photo.labeled.labels, classes, ids)
            write_map(labels, colors, folder / split / row["label_file_name"])
            lists[split].write(compact(row) + "\n")


def _visible(name: str) -> str:
    """Rename folders that `datasets` skips: those that start with two underscores, as of caches."""
    return "/".join(f"%5F{part[1:]}" if part.startswith("__") else part for part in name.split("/"))


def _id2label(classes: Sequence[LabelClass]) -> str:
    """Name of each id, as a model's configuration takes it."""
    names = {each.id: each.name for each in classes}
    # A model has a class for each id up to the last one.
    if max(names) > UNLABELED:
        names[UNLABELED] = "unlabeled"
    by_id = {str(number): names[number] for number in sorted(names)}
    return json.dumps(by_id, ensure_ascii=False, indent=1) + "\n"

"""Formats `mmseg` and `ade`: images/ and annotations/ as MMSegmentation reads them.

Own code: maps are what Pillow writes. datumaro reads this layout and writes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskfree.files.atomic import replace_text
from maskfree.label.formats.index_maps import in_order, palette_bytes, renumbered, write_map
from maskfree.label.formats.json_stream import compact
from maskfree.label.formats.photo_files import PhotoFiles
from maskfree.label.formats.splits import is_validation
from maskfree.label.labeled import UNLABELED, LabelClass


def write_mmseg(
    classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path, first_id: int = 0
) -> None:
    """Write both folders, and the settings with which they are read.

    Args:
        classes: Classes of the data set.
        photos: Photos with their labels.
        folder: Empty folder to fill.
        first_id: 0: ids from 0 on, with 255 for unlabeled pixels (`reduce_zero_label=False`). 1:
            ids from 1 on as in ADE20K, with 0 for unlabeled pixels (`reduce_zero_label=True`).

    Raises:
        ValueError: There are more classes than ids of 8 bits.
        OSError: A file cannot be written.
    """
    numbered = in_order(classes, first_id)
    if numbered[-1].id >= UNLABELED:
        raise ValueError(
            f"MMSegmentation reads ids of 8 bits: {len(classes)} classes, "
            f"{UNLABELED - first_id} are the most"
        )

    ids = {each.name: each.id for each in numbered}
    unlabeled = 0 if first_id else UNLABELED
    colors = palette_bytes(numbered)

    for photo in photos:
        split = "validation" if is_validation(photo.labeled.name) else "training"
        # All photos have one suffix, since `img_suffix` is one; decoders look at the content.
        photo.put(folder / "images" / split / f"{photo.name}.jpg")
        labels = renumbered(photo.labeled.labels, classes, ids, unlabeled)
        write_map(labels, colors, folder / "annotations" / split / f"{photo.name}.png")

    settings = _settings(numbered, reduces_zero=first_id > 0)
    replace_text(folder / "dataset.json", compact(settings) + "\n")


def _settings(classes: Sequence[LabelClass], reduces_zero: bool) -> dict[str, Any]:
    """Arguments of `mmseg.datasets.BaseSegDataset`."""
    return {
        "metainfo": {
            "classes": [each.name for each in classes],
            "palette": [list(each.color) for each in classes],
        },
        "img_suffix": ".jpg",
        "seg_map_suffix": ".png",
        "reduce_zero_label": reduces_zero,
    }

"""Format `masks`: a PNG of ids for each photo, with a palette, and classes.txt.

Own code: Pillow writes the PNG. No library writes it with a word list that `maskfree evaluate
folder` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskfree.files.atomic import replace_text
from maskfree.label.classes import classes_text
from maskfree.label.formats.index_maps import palette_bytes, write_map
from maskfree.label.formats.photo_files import PhotoFiles
from maskfree.label.labeled import LabelClass


def write_masks(classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path) -> None:
    """Write images/NAME.jpg, labels/NAME.png and classes.txt; ids are those of the classes.

    Args:
        classes: Classes of the data set.
        photos: Photos with their labels.
        folder: Empty folder to fill.

    Raises:
        OSError: A file cannot be written.
    """
    replace_text(folder / "classes.txt", classes_text(classes))
    colors = palette_bytes(classes)

    for photo in photos:
        photo.put(folder / "images" / f"{photo.name}{photo.suffix}")
        write_map(photo.labeled.labels, colors, folder / "labels" / f"{photo.name}.png")

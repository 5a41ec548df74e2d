"""The least certain photos of a data set, for a person to look at."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from maskfree.files.atomic import escape, replace_text
from maskfree.files.leftovers import unfinished_folder, writing
from maskfree.label.classes import classes_text
from maskfree.label.manifest import Manifest
from maskfree.label.photo_row import DONE, PhotoRow
from maskfree.label.store import Store

REVIEW = "review.txt"
"""File of the list, in the folder of the data set."""


def write_review(store: Store, fraction: float) -> int:
    """List the least certain photos, one a line: confidence, name, path.

    Args:
        store: The data set.
        fraction: Fraction of the labeled photos that is listed.

    Returns:
        Number of photos on the list.

    Raises:
        OSError: The list cannot be written.
    """
    lines = []
    for row in _rows(store, fraction):
        confidence = "-" if row.confidence is None else f"{row.confidence:.3f}"
        lines.append(f"{confidence}\t{row.name}\t{escape(row.source)}\n")

    replace_text(store.folder / REVIEW, "".join(lines))
    return len(lines)


def copy_review(store: Store, fraction: float, folder: Path) -> int:
    """Copy the least certain photos and their label maps, as `maskfree evaluate folder` reads them.

    Args:
        store: The data set.
        fraction: Fraction of the labeled photos that is copied.
        folder: New folder for images/, labels/ and classes.txt.

    Returns:
        Number of photos that were copied.

    Raises:
        FileExistsError: The folder exists; it may hold corrected labels.
        OSError: A file cannot be read or written.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists, and may hold corrected labels: give a new folder")

    rows = [row for row in _rows(store, fraction) if store.photo_path(row).is_file()]
    with writing(folder), unfinished_folder(folder.parent) as unfinished:
        for part in ("images", "labels"):
            (unfinished / part).mkdir()

        for row, stem in zip(rows, _stems(rows), strict=True):
            photo = store.photo_path(row)
            shutil.copy(photo, unfinished / "images" / f"{stem}{photo.suffix}")
            shutil.copy(store.label_path(row.name), unfinished / "labels" / f"{stem}.png")

        replace_text(unfinished / "classes.txt", classes_text(store.classes))
        unfinished.rename(folder)
    return len(rows)


def _rows(store: Store, fraction: float) -> list[PhotoRow]:
    """Rows of the least certain photos, the least certain one first."""
    with Manifest(store.folder) as manifest:
        number = math.ceil(fraction * manifest.count()[DONE])
        return list(manifest.least_certain(number))


def _stems(rows: Sequence[PhotoRow]) -> list[str]:
    """Name of each photo without folders, unique in any letter case."""
    taken: set[str] = set()
    stems = []
    for row in rows:
        stem = row.name.replace("/", "__")
        if stem.casefold() in taken:
            stem = f"{stem}--{row.id}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems

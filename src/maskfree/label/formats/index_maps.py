"""Label maps as PNG files: ids of the pixels, with the colors of the classes as a palette."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt
from PIL import Image

from maskfree.files.outputs import png_mark
from maskfree.label.classes import palette
from maskfree.label.labeled import UNLABELED, LabelClass


def write_map(labels: UInt[np.ndarray, "h w"], colors: bytes | None, path: Path) -> None:
    """Write a label map as a PNG.

    Args:
        labels: Id of each pixel.
        colors: Palette of an image of 8 bits; None for one of 16 bits, which has no palette.
        path: File to write; its folder is created.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if colors is not None:
        image = Image.fromarray(labels.astype(np.uint8))
        image.putpalette(colors)
    image.save(path, "PNG", pnginfo=png_mark())


def palette_bytes(classes: Sequence[LabelClass]) -> bytes | None:
    """Colors of the ids 0 to 255 as Pillow takes them.

    Args:
        classes: Classes of the data set.

    Returns:
        RGB bytes; None if an id is above 255.
    """
    colors = palette(classes)
    if colors is None:
        return None
    return colors.tobytes()


def in_order(classes: Sequence[LabelClass], first_id: int) -> tuple[LabelClass, ...]:
    """Number classes without gaps, except that 255 stays that of unlabeled pixels.

    Args:
        classes: Classes in the order of their new ids.
        first_id: Id of the first one.

    Returns:
        The classes with their new ids.
    """
    numbers = [first_id + index for index in range(len(classes))]
    return tuple(
        replace(each, id=number + (number >= UNLABELED))
        for each, number in zip(classes, numbers, strict=True)
    )


def renumbered(
    labels: UInt[np.ndarray, "h w"],
    old: Sequence[LabelClass],
    new: Mapping[str, int],
    unlabeled: int = UNLABELED,
) -> UInt[np.ndarray, "h w"]:
    """Give the pixels of a label map other ids.

    Args:
        labels: Id of each pixel.
        old: Classes with the ids of `labels`.
        new: New id of each class by name.
        unlabeled: New id of pixels without a label.

    Returns:
        The new map, of 16 bits if an id is above 255.
    """
    largest = max(*new.values(), unlabeled)
    lookup = np.full(1 + max(UNLABELED, int(labels.max())), unlabeled, np.min_scalar_type(largest))
    for each in old:
        if each.id < len(lookup):
            lookup[each.id] = new[each.name]
    return lookup[labels]

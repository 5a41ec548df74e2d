"""What a labeled data set consists of: its classes, and its photos with their label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16

from maskfree.ops.ignore import IGNORE
from maskfree.results.regions import Region

UNLABELED = IGNORE
"""Id of pixels without a label in every label map, of 8 and of 16 bits; never that of a class."""


@dataclass(frozen=True)
class LabelClass:
    """One class of a labeled data set."""

    id: int
    """Id of the class in label maps; never 255."""
    name: str
    """Name of the class: its first synonym, or "background"."""
    synonyms: tuple[str, ...]
    """All words for the class, the name first; empty for the background."""
    color: tuple[int, int, int]
    """Color in palettes: red, green, blue in [0, 255]."""

    @property
    def is_background(self) -> bool:
        """Whether it stands for all pixels that are none of the words.

        Returns:
            True for the background, which has no synonyms.
        """
        return not self.synonyms

    @property
    def hex_color(self) -> str:
        """The color as web pages write it.

        Returns:
            "#" and six hexadecimal digits.
        """
        return "#{:02x}{:02x}{:02x}".format(*self.color)


def without_background(classes: Sequence[LabelClass]) -> list[LabelClass]:
    """Leave out the background, for formats of objects.

    Args:
        classes: Classes of a data set.

    Returns:
        The words, in their order.
    """
    return [each for each in classes if not each.is_background]


@dataclass(frozen=True, eq=False)
class LabeledPhoto:
    """A photo of a labeled data set with its labels."""

    path: Path
    """File of the photo."""
    name: str
    """Name in the data set: a relative path with "/" and without suffix, such as "dogs/rex",
    unique in any letter case; its label map is labels/NAME.png."""
    width: int
    """Width of the upright photo, in pixels."""
    height: int
    """Height of the upright photo, in pixels."""
    labels: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]
    """Id of each pixel's class, or 255 for pixels without a label."""
    regions: tuple[Region, ...]
    """Connected regions, each of one class: their class_id is the class's id in `labels`."""

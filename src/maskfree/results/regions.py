"""Regions of a label map: the pixels of a photo that one name covers, all or connected ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float16, UInt

from maskfree.results.polygons import Polygon, polygons_of


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels of a photo that have one name: all of them, or a connected part."""

    name: str
    """Name of the class, or "background"."""
    class_id: int
    """Id of the name in the label map."""
    box: tuple[int, int, int, int]
    """Smallest box in pixels: left, top, right, bottom; right and bottom are exclusive."""
    crop: Bool[np.ndarray, "hb wb"]
    """True on the region's pixels, within the box."""
    size: tuple[int, int]
    """Height and width of the photo in pixels."""
    score: float
    """Mean winning score over the region's pixels."""
    confidence: float
    """Mean probability that the name is right, in [0, 1]; NaN if the result has none."""

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """The region's mask at the photo's size, made when asked for.

        Returns:
            True on the region's pixels.
        """
        left, top, right, bottom = self.box
        mask = np.zeros(self.size, bool)
        mask[top:bottom, left:right] = self.crop
        return mask

    @property
    def area_px(self) -> int:
        """Number of pixels of the region.

        Returns:
            At least 1.
        """
        return int(np.count_nonzero(self.crop))

    @property
    def area(self) -> float:
        """Fraction of the photo that the region covers.

        Returns:
            Fraction in (0, 1].
        """
        height, width = self.size
        return self.area_px / (height * width)

    def polygons(self) -> list[Polygon]:
        """Outline the region exactly, along the edges of its pixels.

        Returns:
            One polygon per connected part: its outer ring, an array (n, 2) of x and y in pixels of
            the photo, and the list of the rings of its holes. The pixel at the top left covers
            [0, 1] x [0, 1]; the last point of a ring is not the first one again.

        Raises:
            ValueError: The extra `label` is not installed.
        """
        return polygons_of(self.crop, left=self.box[0], top=self.box[1])

    def __repr__(self) -> str:
        """Return a single line without the mask."""
        return (
            f"Region({self.name!r}, score={self.score:.3f}, box={self.box}, area={self.area:.1%})"
        )


def regions_of(
    labels: UInt[np.ndarray, "h w"],
    scores: Float16[np.ndarray, "h w"],
    confidence: Float16[np.ndarray, "h w"] | None,
    names: Sequence[str],
) -> Iterator[Region]:
    """Return the region of each name that occurs in a label map.

    Args:
        labels: Index into `names` of each pixel.
        scores: Winning score of each pixel.
        confidence: Probability of each pixel's label; None if it is not known.
        names: Name of each id.

    Yields:
        Regions in the order of the names; names without pixels are left out.
    """
    for index, name in enumerate(names):
        mask = labels == index
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue

        top, bottom = int(rows[0]), int(rows[-1]) + 1
        left, right = int(columns[0]), int(columns[-1]) + 1

        yield Region(
            name=name,
            class_id=index,
            box=(left, top, right, bottom),
            crop=mask[top:bottom, left:right].copy(),
            size=labels.shape,
            score=_mean(scores, mask),
            confidence=_mean(confidence, mask),
        )


def _mean(values: Float16[np.ndarray, "h w"] | None, mask: Bool[np.ndarray, "h w"]) -> float:
    """Mean over a mask; NaN without values."""
    if values is None:
        return float("nan")
    # In double precision, since sums of float16 overflow.
    return float(values[mask].mean(dtype=np.float64))

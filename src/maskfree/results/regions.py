"""Regions of a label map: the part of a photo that one name covers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float16, UInt


@dataclass(frozen=True, eq=False)
class Region:
    """All pixels of a photo that have one name."""

    name: str
    """Name of the class, or "background"."""
    mask: Bool[np.ndarray, "h w"]
    """True on the region's pixels, at the photo's size."""
    score: float
    """Mean winning score over the region's pixels."""
    box: tuple[int, int, int, int]
    """Smallest box in pixels: left, top, right, bottom; right and bottom are exclusive."""
    area: float
    """Fraction of the photo that the region covers, in (0, 1]."""

    def __repr__(self) -> str:
        """Return a single line without the mask."""
        return (
            f"Region({self.name!r}, score={self.score:.3f}, box={self.box}, area={self.area:.1%})"
        )


def regions_of(
    labels: UInt[np.ndarray, "h w"], scores: Float16[np.ndarray, "h w"], names: Sequence[str]
) -> Iterator[Region]:
    """Return the region of each name that occurs in a label map.

    Args:
        labels: Index into `names` of each pixel.
        scores: Winning score of each pixel.
        names: Name of each id.

    Yields:
        Regions in the order of the names; names without pixels are left out.
    """
    for index, name in enumerate(names):
        mask = labels == index
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue

        yield Region(
            name=name,
            mask=mask,
            # In double precision, since sums of float16 overflow.
            score=float(scores[mask].mean(dtype=np.float64)),
            box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
            area=float(np.count_nonzero(mask) / mask.size),
        )

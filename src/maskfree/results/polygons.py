"""Polygons of masks, with holes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from maskfree.config.extras import need

Ring = Float64[np.ndarray, "n 2"]
Polygon = tuple[Ring, list[Ring]]
"""Outer ring and the rings of its holes; x and y of each corner in pixels."""


def polygons_of(mask: Bool[np.ndarray, "h w"], left: int = 0, top: int = 0) -> list[Polygon]:
    """Outline the connected parts of a mask.

    Args:
        mask: The mask.
        left: Added to each x, in pixels.
        top: Added to each y, in pixels.

    Returns:
        One polygon per connected part.

    Raises:
        ValueError: The extra `label` is not installed.
    """
    need("polygons of a region", "label", modules=("contourpy",))
    from contourpy import FillType, contour_generator

    # With a margin, the outline closes where the region touches the border.
    padded = np.pad(mask, 1).astype(np.float32)
    generator = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    outlines: Any = generator.filled(0.5, 2.0)

    shift = np.array([left - 0.5, top - 0.5])
    polygons: list[Polygon] = []
    for corners, starts in zip(*outlines, strict=True):
        rings = []
        for start, stop in pairwise(starts):
            # The last point repeats the first.
            rings.append(corners[start : stop - 1] + shift)
        polygons.append((rings[0], rings[1:]))
    return polygons

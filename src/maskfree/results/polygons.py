"""Polygons of masks: exact outlines along the edges of pixels, with holes."""

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
    """Outline the parts of a mask whose pixels share edges.

    Pixels whose centers lie in a polygon are those of the mask. No ring crosses or touches itself.

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

    shift = np.array([left, top], float)
    polygons: list[Polygon] = []
    for points, offsets in zip(*outlines, strict=True):
        rings: list[Ring] = []
        for start, stop in pairwise(offsets):
            # Coordinates are those of pixel centers; the margin is one pixel.
            rings += _simple_rings(_corners(points[start:stop] - 0.5))

        # Holes turn the other way.
        (outer,) = [ring for ring in rings if _signed_area(ring) > 0]
        holes = [ring + shift for ring in rings if _signed_area(ring) < 0]
        polygons.append((outer + shift, holes))
    return polygons


def _corners(midpoints: Float64[np.ndarray, "m 2"]) -> Ring:
    """Corners of the closed path over pixel edges that goes through the middles of the edges."""
    # The middle of a horizontal edge has a whole y, that of a vertical edge a whole x.
    is_vertical = midpoints[:, 0] % 1 == 0

    # The path turns between edges of different direction; the last middle repeats the first.
    turns = is_vertical[:-1] != is_vertical[1:]
    before, after = midpoints[:-1][turns], midpoints[1:][turns]
    from_vertical = is_vertical[:-1][turns]

    x = np.where(from_vertical, before[:, 0], after[:, 0])
    y = np.where(from_vertical, after[:, 1], before[:, 1])
    return np.stack([x, y], axis=1)


def _simple_rings(ring: Ring) -> list[Ring]:
    """Split a ring where it touches itself, so that each part visits a corner once."""
    if len(np.unique(ring, axis=0)) == len(ring):
        return [ring]

    parts: list[Ring] = []
    path: list[tuple[float, float]] = []
    place: dict[tuple[float, float], int] = {}
    for corner in map(tuple, ring.tolist()):
        if corner in place:
            # The path since the last visit is a ring of its own.
            start = place[corner]
            parts.append(np.array(path[start:]))
            for visited in path[start + 1 :]:
                del place[visited]
            del path[start + 1 :]
            continue

        place[corner] = len(path)
        path.append(corner)

    parts.append(np.array(path))
    return parts


def _signed_area(ring: Ring) -> float:
    """Area of a ring in square pixels; the sign says which way it turns."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)

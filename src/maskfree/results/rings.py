"""Outlines of regions as the readers of data sets draw them: one ring a part, holes joined in."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from maskfree.results.polygons import Ring
from maskfree.results.regions import Region

# A ring that is drawn needs three points, also around a single pixel.
_FEWEST_POINTS = 3
# From the center of a pixel to a point that both cutting off and rounding bring to its index.
_OFF_CENTER = 0.25
# Largest distance of a simplified ring from the exact one: a pixel, and less for small regions, so
# that about two percent of the area change.
_MAX_DISTANCE_PX = 1.0
_DISTANCE_BY_THICKNESS = 0.04


def edge_rings(region: Region) -> list[Ring]:
    """Outline a region along the edges of its pixels, for readers that compute areas.

    Args:
        region: The region.

    Returns:
        One ring of x and y per connected part. A hole is joined by a cut that is run through
        twice, so that the even-odd rule leaves it empty.
    """
    return [_joined(outer, holes) for outer, holes in region.polygons()]


def center_rings(region: Region) -> list[Ring]:
    """Outline a region through the centers of its border pixels, for readers that draw pixels.

    OpenCV and Pillow fill the pixels that a ring runs through, so that a ring along the edges
    would add a row and a column to each region.

    Args:
        region: The region.

    Returns:
        One ring of x and y per connected part, with holes joined as in `edge_rings`. Pixel (0, 0)
        is the point (0.25, 0.25): some readers cut the fraction off, others round.
    """
    rings = []
    for outer, holes in region.polygons():
        ring = _joined(_through_centers(outer), [_through_centers(hole) for hole in holes])
        ring = ring - _OFF_CENTER
        missing = max(0, _FEWEST_POINTS - len(ring))
        rings.append(np.concatenate([ring, np.repeat(ring[-1:], missing, axis=0)]))
    return rings


def simple_edge_rings(region: Region) -> list[Ring]:
    """Outline a region as `edge_rings` does, with fewer points, for people who move them.

    Args:
        region: The region.

    Returns:
        One ring of x and y per connected part. Of regions above 100 pixels, the IoU with the
        region is at least 0.98.
    """
    distance = _distance(region)
    rings = []
    for outer, holes in region.polygons():
        simple = [_simplified(_through_middles(ring), distance) for ring in [outer, *holes]]
        rings.append(_joined(simple[0], simple[1:]))
    return rings


def simple_center_ring(region: Region) -> Ring:
    """Outline a connected region without holes as `center_rings` does, with fewer points.

    Args:
        region: The region.

    Returns:
        Ring of x and y, with the IoU of `simple_edge_rings`.
    """
    [ring] = center_rings(region)
    return _simplified(ring, _distance(region))


def _distance(region: Region) -> float:
    """Largest distance of a simplified ring in pixels."""
    length = 0.0
    for outer, holes in region.polygons():
        for ring in [outer, *holes]:
            length += float(np.abs(ring - np.roll(ring, 1, axis=0)).sum())
    return min(_MAX_DISTANCE_PX, _DISTANCE_BY_THICKNESS * region.area_px / length)


def _simplified(ring: Ring, distance: float) -> Ring:
    """Leave out points that lie so near to the line between others (Douglas and Peucker 1973)."""
    from skimage.measure import approximate_polygon

    simple = approximate_polygon(np.concatenate([ring, ring[:1]]), distance)[:-1]
    if len(simple) < _FEWEST_POINTS:
        return ring
    return simple


def _through_middles(ring: Ring) -> Ring:
    """Path through the middles of the edges of pixels, which makes stairs straight."""
    after = np.sign(np.roll(ring, -1, axis=0) - ring)
    before = np.roll(after, 1, axis=0)
    return np.stack([ring - before / 2, ring + after / 2], axis=1).reshape(-1, 2)


def _through_centers(ring: Ring) -> Ring:
    """Path through the pixels inside a ring along edges, from center to center."""
    after = np.sign(np.roll(ring, -1, axis=0) - ring)
    before = np.roll(after, 1, axis=0)
    # The region lies on the right hand of each edge.
    right_before = np.stack([-before[:, 1], before[:, 0]], axis=1)
    right_after = np.stack([-after[:, 1], after[:, 0]], axis=1)

    # A right turn has one center on its inside; a left turn goes from one center to the next.
    first = ring + (right_before - before) / 2
    second = ring + (right_after + after) / 2
    path = np.stack([first, second], axis=1).reshape(-1, 2)

    # Both points of a right turn are the same, and so may be neighbors along the ring.
    is_new = (path != np.roll(path, 1, axis=0)).any(axis=1)
    is_new[0] = True
    return path[is_new]


def _joined(outer: Ring, holes: list[Ring]) -> Float64[np.ndarray, "m 2"]:
    """Join the rings of holes to the outer ring, each by a cut that runs upwards in the region."""
    ring = outer

    # From the top, so that what a cut runs into has been joined before.
    for hole in sorted(holes, key=lambda hole: hole[:, 1].min()):
        start = int(hole[:, 1].argmin())
        x, y = hole[start]

        # Height at which each edge meets the column x; for edges in the column, their lower end.
        run, rise = (np.roll(ring, -1, axis=0) - ring).T
        is_vertical = run == 0
        along = (x - ring[:, 0]) / np.where(is_vertical, 1, run)
        heights = ring[:, 1] + np.where(is_vertical, np.maximum(rise, 0), along * rise)

        meets = np.where(is_vertical, ring[:, 0] == x, (along >= 0) & (along <= 1))
        is_above = meets & (heights <= y)
        edge = int(np.where(is_above, heights, -np.inf).argmax())
        meeting = np.array([[x, heights[edge]]])

        around = np.roll(hole, -start, axis=0)
        cut = [meeting, around, around[:1], meeting]
        ring = np.concatenate([ring[: edge + 1], *cut, ring[edge + 1 :]])
    return ring

"""Outlines of regions: exact ones, and those of fewer points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from scipy.ndimage import gaussian_filter

from maskfree.results.components import connected_regions
from maskfree.results.polygons import Ring
from maskfree.results.regions import Region
from maskfree.results.rings import (
    center_rings,
    edge_rings,
    simple_center_ring,
    simple_edge_rings,
)

# pycocotools is older than numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def regions() -> Iterator[Region]:
    """Regions of smooth and of rough noise, with holes and diagonal neighbors."""
    generator = np.random.default_rng(0)
    for width in (0.7, 2, 6):
        noise = gaussian_filter(generator.normal(size=(71, 93)), width)
        labels = np.digitize(noise, np.quantile(noise, [0.3, 0.6])).astype(np.uint8)
        yield from connected_regions(labels, labels.astype(np.float16), None, ["a", "b", "c"])


def by_area(rings: list[Ring], size: tuple[int, int]) -> np.ndarray:
    """As pycocotools draws polygons."""
    packed: Any = coco_mask.frPyObjects([ring.reshape(-1).tolist() for ring in rings], *size)
    return coco_mask.decode(coco_mask.merge(packed)) > 0


def by_pixels(rings: list[Ring], size: tuple[int, int], as_whole: bool) -> np.ndarray:
    """As Pillow draws polygons, with fractions or with whole numbers."""
    mask = np.zeros(size, bool)
    for ring in rings:
        picture = Image.new("1", (size[1], size[0]))
        points = [(int(x), int(y)) if as_whole else (x, y) for x, y in ring.tolist()]
        ImageDraw.Draw(picture).polygon(points, fill=1, outline=1)
        mask |= np.asarray(picture)
    return mask


def test_exact_rings_are_drawn_as_the_region_holes_and_all():
    num_holes = 0
    for region in regions():
        num_holes += sum(len(holes) for _, holes in region.polygons())
        assert (by_area(edge_rings(region), region.size) == region.mask).all()
        for as_whole in (False, True):
            drawn = by_pixels(center_rings(region), region.size, as_whole)
            assert (drawn == region.mask).all()
    assert num_holes > 50


def test_simple_rings_have_fewer_points_and_the_same_area():
    few = many = 0
    for region in regions():
        if region.area_px <= 100:
            continue
        mask = region.mask

        rings = simple_edge_rings(region)
        found = by_area(rings, region.size)
        assert (found & mask).sum() >= 0.98 * (found | mask).sum()
        if not any(holes for _, holes in region.polygons()):
            few += len(rings[0])
            many += len(edge_rings(region)[0])

            found = by_pixels([simple_center_ring(region)], region.size, as_whole=False)
            assert (found & mask).sum() >= 0.98 * (found | mask).sum()
    assert 0 < few < 0.8 * many

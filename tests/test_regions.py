from __future__ import annotations

from itertools import pairwise

import numpy as np
import pycocotools.mask as coco
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from maskfree.results.components import connected_regions
from maskfree.results.polygons import polygons_of
from maskfree.results.regions import Region, regions_of

NAMES = ("a", "b", "c")


@st.composite
def label_maps(draw: st.DrawFn) -> np.ndarray:
    """Maps of up to 9 x 12 pixels with three ids."""
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 12)))
    numbers = np.random.default_rng(draw(st.integers(0, 9999)))
    return numbers.integers(0, draw(st.integers(1, 3)), size).astype(np.uint8)


def drawn(region: Region) -> np.ndarray:
    """The region's mask, drawn from its polygons: pixels whose centers lie inside."""
    mask = np.zeros(region.size, bool)
    for outer, holes in region.polygons():
        # polygon2mask takes rows first, and centers at whole numbers.
        part = polygon2mask(region.size, outer[:, ::-1] - 0.5)
        for hole in holes:
            part &= ~polygon2mask(region.size, hole[:, ::-1] - 0.5)
        assert not (mask & part).any(), "the parts do not overlap"
        mask |= part
    return mask


def area_of(ring: np.ndarray) -> float:
    """Area by the shoelace formula, corner by corner."""
    total = 0.0
    for (x, y), (next_x, next_y) in pairwise([*ring, ring[0]]):
        total += x * next_y - next_x * y
    return abs(total) / 2


@settings(deadline=None)
@given(label_maps())
def test_rings_are_simple_and_enclose_the_area(labels: np.ndarray):
    for region in regions_of(labels, np.zeros(labels.shape, np.float16), None, NAMES):
        total = 0.0
        for outer, holes in region.polygons():
            total += area_of(outer) - sum(map(area_of, holes))
            for ring in (outer, *holes):
                assert len({tuple(corner) for corner in ring.tolist()}) == len(ring) >= 4
                # Each corner is a turn, from one direction of edges to the other.
                steps = np.diff(np.concatenate([ring, ring[:1]]), axis=0)
                assert ((steps == 0).sum(1) == 1).all()
                assert ((steps[:, 0] == 0) != (np.roll(steps[:, 0], 1) == 0)).all()
        assert total == region.area_px


def test_polygon_with_holes_that_touch_at_a_corner():
    mask = np.ones((5, 7), bool)
    mask[1, 2] = mask[2, 3] = False
    (outer, holes), *others = polygons_of(mask, left=10, top=20)
    assert not others
    assert sorted(outer.tolist()) == [[10, 20], [10, 25], [17, 20], [17, 25]]
    assert sorted(sorted(hole.tolist()) for hole in holes) == [
        [[12, 21], [12, 22], [13, 21], [13, 22]],
        [[13, 22], [13, 23], [14, 22], [14, 23]],
    ]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(deadline=None)
@given(label_maps())
def test_cocos_reader_draws_the_same_masks(labels: np.ndarray):
    for region in connected_regions(labels, np.zeros(labels.shape, np.float16), None, NAMES):
        height, width = region.size
        ((outer, holes),) = region.polygons()
        read = coco.decode(coco.frPyObjects([outer.ravel().tolist()], height, width))[..., 0]
        for hole in holes:
            read -= coco.decode(coco.frPyObjects([hole.ravel().tolist()], height, width))[..., 0]
        assert (read == region.mask).all()


@settings(deadline=None)
@given(label_maps())
def test_polygons_drawn_again_are_the_region(labels: np.ndarray):
    scores = np.zeros(labels.shape, np.float16)
    for region in regions_of(labels, scores, None, NAMES):
        assert (drawn(region) == (labels == region.class_id)).all()
    for region in connected_regions(labels, scores, None, NAMES):
        assert (drawn(region) == region.mask).all()


def flooded(labels: np.ndarray) -> list[tuple[int, frozenset]]:
    """Id and pixels of each connected component, by plain flooding."""
    seen: set[tuple[int, int]] = set()
    found = []
    for start in np.ndindex(*labels.shape):
        if start in seen:
            continue
        pixels, waiting = set(), [start]
        while waiting:
            row, column = place = waiting.pop()
            is_inside = 0 <= row < labels.shape[0] and 0 <= column < labels.shape[1]
            if not is_inside or place in pixels or labels[place] != labels[start]:
                continue
            pixels.add(place)
            waiting += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        seen |= pixels
        found.append((int(labels[start]), frozenset(pixels)))
    return found


@settings(deadline=None)
@given(label_maps(), st.integers(0, 9999))
def test_regions_are_the_connected_components(labels: np.ndarray, seed: int):
    numbers = np.random.default_rng(seed)
    scores = numbers.random(labels.shape).astype(np.float16)
    confidence = numbers.random(labels.shape).astype(np.float16)

    found = list(connected_regions(labels, scores, confidence, NAMES))
    expected = flooded(labels)
    assert [region.class_id for region in found] == [class_id for class_id, _ in expected]
    for region, (class_id, pixels) in zip(found, expected, strict=True):
        places = tuple(np.array(sorted(pixels)).T)
        mask = np.zeros(labels.shape, bool)
        mask[places] = True
        assert (region.mask == mask).all()

        left, top, right, bottom = region.box
        assert region.crop.shape == (bottom - top, right - left)
        assert region.crop.any(0).all() or region.crop.any(1).any()
        assert region.crop[0].any() and region.crop[-1].any()
        assert region.crop[:, 0].any() and region.crop[:, -1].any()

        assert region.name == NAMES[class_id]
        assert region.area_px == len(pixels)
        assert region.area == len(pixels) / labels.size
        np.testing.assert_allclose(region.score, scores[places].mean(dtype=float))
        np.testing.assert_allclose(region.confidence, confidence[places].mean(dtype=float))

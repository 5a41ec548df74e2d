from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from maskfree.results.components import connected_regions
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

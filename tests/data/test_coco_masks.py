"""Masks of COCO are checked before they are painted.

What is right is painted as a plain rasteriser would.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import box, runs

from maskfree.data.benchmarks.coco_masks import ObjectMask, read_mask

WIDTH, HEIGHT = 12, 8
SQUARE = box(2, 2, 6, 6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.fixed_dictionaries(
            {"counts": inner | st.text("0123456789PQlo`_", max_size=12), "size": st.just([8, 12])}
        )
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=24,
)


def painted(mask: ObjectMask, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    truth = np.zeros((height, width), dtype=np.uint8)
    mask.paint(truth, 1)
    return truth


def slowly_painted(polygon: list[float], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """By the even-odd rule at the middle of each pixel: what is inside, and how far each middle is
    from the outline.
    """
    inside, far = np.zeros((height, width), bool), np.zeros((height, width))
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    sides = list(zip(corners, corners[1:] + corners[:1], strict=True))
    for y in range(height):
        for x in range(width):
            px, py = x + 0.5, y + 0.5
            crossings = [
                (ay > py) != (by > py) and px < (bx - ax) * (py - ay) / (by - ay) + ax
                for (ax, ay), (bx, by) in sides
            ]
            inside[y, x] = sum(crossings) % 2
            far[y, x] = min(distance((px, py), a, b) for a, b in sides)
    return inside, far


def distance(point, a, b):
    (px, py), (ax, ay), (bx, by) = point, a, b
    length = (bx - ax) ** 2 + (by - ay) ** 2
    along = (
        0
        if not length
        else min(1, max(0, ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / length))
    )
    return math.hypot(px - ax - along * (bx - ax), py - ay - along * (by - ay))


@pytest.mark.parametrize("nothing", [None, [], [[]], [[], []]])
def test_no_segmentation_paints_nothing(nothing):
    mask = read_mask(nothing, WIDTH, HEIGHT)
    assert not painted(mask).any() and mask.area == 0


def test_an_empty_polygon_beside_another_is_nothing():
    assert painted(read_mask([[], *SQUARE], WIDTH, HEIGHT)).sum() == 16


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[math.nan, 2, 6, 2, 6, 6]], "x = nan"),
        ([[2, math.inf, 6, 2, 6, 6]], "y = inf"),
        ([[2, 2, 6, 2, 6, -1e300]], r"y = -1e\+300"),
        ([[2, 2, 10**400, 2, 6, 6]], "x = 1000"),
        ([[2, 2, 6, 2, 6, 17]], "y = 17, far outside of the photo of 12x8"),
        ([[2, 2, 6, 2, 6]], "a polygon has 5 numbers"),
        ([[2, 2, 6, 2]], "a polygon has 4 numbers"),  # pycocotools takes it for a box
        ([[2, 2]], "a polygon has 2 numbers"),
        ([[2, 2, 6, 2, 6, "6"]], "holds a string where a number"),
        ([[2, 2, 6, 2, 6, None]], "holds null where a number"),
        ([[2, 2, 6, 2, 6, True]], "holds a boolean where a number"),
        ([[[2, 2], [6, 2], [6, 6]]], "holds a list where a number"),
        ([2, 2, 6, 2, 6, 6], "is one list of numbers"),
        ([*SQUARE, 3], "holds a number where a polygon"),
        ([*SQUARE, {"size": [8, 12], "counts": [96]}], "holds an object where a polygon"),
        ([[0, 0, 12, 8] * 200_000], "its outlines are 4800000 pixels"),
        ("polygon", "is a string, neither"),
        (3, "is a number, neither"),
        ({}, "of the size None"),
        ({"size": [8, 12]}, "are null, neither a list nor"),
        ({"size": [12, 8], "counts": [96]}, r"of the size \[12, 8\]: the photo has \[8, 12\]"),
        ({"size": "8x12", "counts": [96]}, "of the size '8x12'"),
        ({"size": [8, 12], "counts": [10, 20]}, "are 30 pixels together: the photo has 96"),
        ({"size": [8, 12], "counts": [96, 1]}, "are 97 pixels"),
        ({"size": [8, 12], "counts": []}, "are 0 pixels"),
        ({"size": [8, 12], "counts": [100, -4]}, "a run length is -4"),
        ({"size": [8, 12], "counts": [95.5, 0.5]}, r"a run length is 95\.5"),
        ({"size": [8, 12], "counts": [10**4000 * 9, 10**4300]}, "are a number pixels"),
        ({"size": [8, 12], "counts": ""}, "are 0 pixels"),
        ({"size": [8, 12], "counts": "oooo"}, "compressed run lengths are damaged"),
        ({"size": [8, 12], "counts": "P" * 9 + "1"}, "compressed run lengths are damaged"),
        ({"size": [8, 12], "counts": "ä"}, "compressed run lengths are damaged"),
        ({"size": [8, 12], "counts": "\n"}, "compressed run lengths are damaged"),
        ({"size": [8, 12], "counts": {"0": 96}}, "are an object, neither"),
    ],
)
def test_what_is_no_mask_of_the_photo_is_refused(segmentation, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        read_mask(segmentation, WIDTH, HEIGHT)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 200


def test_a_polygon_may_reach_over_the_edge():
    assert painted(read_mask(box(-3, -2, 4, 3), WIDTH, HEIGHT)).sum() == 12


def test_the_area_is_that_of_polygons_and_runs():
    assert read_mask(SQUARE, WIDTH, HEIGHT).area == 16
    assert read_mask([*SQUARE, *box(8, 0, 9, 2)], WIDTH, HEIGHT).area == 18
    assert read_mask({"size": [8, 12], "counts": [10, 5, 80, 1]}, WIDTH, HEIGHT).area == 6


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-5, 20), min_size=6, max_size=12).filter(
        lambda numbers: len(numbers) % 2 == 0
    )
)
def test_polygons_are_painted_as_by_a_plain_rasteriser(polygon):
    """They differ at most where a pixel's middle is within a pixel of the outline."""
    wide, high = 15, 13
    inside, far = slowly_painted(polygon, wide, high)
    found = painted(read_mask([polygon], wide, high), wide, high).astype(bool)
    assert np.array_equal(found[far > 1], inside[far > 1])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_run_lengths_are_read_plain_and_compressed(width, height, data):
    from pycocotools import mask as coco

    bits = data.draw(st.lists(st.booleans(), min_size=width * height, max_size=width * height))
    wanted = np.array(bits).reshape(height, width)
    compressed = coco.encode(np.asfortranarray(wanted.astype(np.uint8)))
    text = {"size": [height, width], "counts": compressed["counts"].decode()}
    for segmentation in (text, runs(wanted)):
        assert np.array_equal(
            painted(read_mask(segmentation, width, height), width, height), wanted
        )


def test_long_compressed_run_lengths_are_read():
    from pycocotools import mask as coco

    wanted = np.zeros((3000, 2000), np.uint8, order="F")
    wanted[100:2900, 3:1500] = 1
    counts = coco.encode(wanted)["counts"].decode()
    mask = read_mask({"size": [3000, 2000], "counts": counts}, 2000, 3000)
    assert np.array_equal(painted(mask, 2000, 3000), wanted)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_anything_else_is_refused_or_painted(segmentation):
    try:
        mask = read_mask(segmentation, WIDTH, HEIGHT)
    except ValueError:
        return
    assert painted(mask).max(initial=0) <= 1

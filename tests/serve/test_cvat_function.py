"""The function for CVAT in examples/, with the classes of CVAT's own SDK."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageDraw

import maskfree

pytest.importorskip("cvat_sdk", reason="CVAT's function needs cvat-sdk: pip install cvat-sdk")
from cvat_sdk.masks import decode_mask

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = ["building", "sky", "tree"]


@pytest.fixture(scope="module")
def function() -> Any:
    spec = importlib.util.spec_from_file_location("cvat_function", EXAMPLES / "cvat_function.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.create(words=",".join(WORDS), background="none")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(EXAMPLES / "pagoda.jpg")


def context(threshold: float | None = None, polygons: bool = False) -> Any:
    return SimpleNamespace(
        frame_name="pagoda.jpg", conf_threshold=threshold, conv_mask_to_poly=polygons
    )


def test_labels_are_the_words(function: Any):
    assert [label.name for label in function.spec.labels] == WORDS


def test_masks_are_the_regions(function: Any, photo: Image.Image):
    shapes = function.detect(context(), photo)
    drawn = np.full((photo.height, photo.width), 9)
    for shape in shapes:
        assert str(shape.type) == "mask" and shape.frame == 0
        size = {"image_width": photo.width, "image_height": photo.height}
        drawn[decode_mask(shape.points, **size)] = shape.label_id
    smallest = round(0.001 * photo.width * photo.height)
    expected = maskfree.load()(photo, words=WORDS).cleaned(smallest)
    assert_array_equal(drawn, expected.labels)


def test_polygons_where_cvat_asks_for_them(function: Any, photo: Image.Image):
    shapes = function.detect(context(polygons=True), photo)
    drawn = Image.new("L", photo.size, 9)
    for shape in shapes:
        assert str(shape.type) == "polygon"
        ImageDraw.Draw(drawn).polygon(shape.points, fill=shape.label_id)
    expected = maskfree.load()(photo, words=WORDS).labels
    assert (np.asarray(drawn) == expected).mean() > 0.9


def test_a_threshold_leaves_doubtful_regions_out(function: Any, photo: Image.Image):
    everything, sure = (len(function.detect(context(each), photo)) for each in (None, 0.8))
    assert 0 < sure < everything

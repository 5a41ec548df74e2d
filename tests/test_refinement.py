"""Refinement: PAMR against the original's numbers, averages that stay averages, edges that are
followed, bad input.
"""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from maskfree.inference.refinement import dense_crf, pamr, refine
from maskfree.ops.label_map import label_map

HALVES = (44, 63)  # height, width of a photo whose left 27 columns are dark


def halves():
    """A noisy photo, dark left of column 27 and bright from there on."""
    noise = np.random.default_rng(0).integers(-12, 13, (*HALVES, 3))
    image = np.where(np.arange(HALVES[1])[None, :, None] < 27, 60, 180) + noise
    return image.astype(np.uint8)


def patch_scores():
    """Two classes on patches of 9 pixels: the first wins left of a blurred border at column 38, not
    at 27.
    """
    first = torch.tensor([0.5, 0.5, 0.5, 0.46, 0.38, 0.3, 0.3]).expand(5, 7)
    return torch.stack([first, 0.8 - first])


def pixels(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@pytest.mark.real
@pytest.mark.parametrize("case", ["tcl_setting", "small"])
def test_pamr_equals_the_original(shared, fixture_tensors, case):
    tensors = fixture_tensors("pamr")
    cases = json.loads((shared / "fixtures" / "pamr.json").read_text())["hyper_parameters"]["cases"]
    (setting,) = (each for each in cases if each["name"] == case)
    image, masks, dilations = (
        tensors[f"in.{case}.image"],
        tensors[f"in.{case}.mask"],
        tuple(setting["dilations"]),
    )
    once = pamr(image, masks, 1, dilations)
    assert_close(once, tensors[f"mid.{case}.mask_after_1_iter"], atol=1e-5, rtol=1e-4)
    assert_close(
        pamr(image, masks, setting["num_iter"], dilations),
        tensors[f"out.{case}.mask"],
        atol=1e-5,
        rtol=1e-4,
    )


def test_pamr_equals_a_plain_loop():
    image, masks, dilations = torch.rand(2, 3, 5, 7), torch.rand(2, 4, 5, 7), (1, 3)
    expected = torch.zeros_like(masks)
    for b, y, x in np.ndindex(2, 5, 7):
        near = [
            (min(max(y + dy * step, 0), 4), min(max(x + dx * step, 0), 6))
            for step in dilations
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        ]
        spread = torch.stack([image[b, :, v, u] for v, u in near]).std(0)
        near = [
            place for i, place in enumerate(near) if i % 9 != 4
        ]  # the pixel itself is no neighbor
        distance = [
            ((image[b, :, y, x] - image[b, :, v, u]).abs() / (1e-8 + 0.1 * spread)).mean()
            for v, u in near
        ]
        weights = (-torch.stack(distance)).softmax(0)
        expected[b, :, y, x] = sum(
            w * masks[b, :, v, u] for w, (v, u) in zip(weights, near, strict=True)
        )
    assert_close(pamr(image, masks, 1, dilations), expected)


def test_pamr_averages_and_adds_nothing():
    image, masks = torch.rand(1, 3, 19, 31), torch.rand(1, 4, 19, 31).softmax(1)
    refined = pamr(image, masks, 3, (1, 2, 24))
    assert_close(refined.sum(1), torch.ones(1, 19, 31))
    assert (refined.amax((2, 3)) <= masks.amax((2, 3)) + 1e-6).all()
    assert (refined.amin((2, 3)) >= masks.amin((2, 3)) - 1e-6).all()
    constant = torch.full_like(masks, 0.25)
    assert_close(pamr(image, constant, 3, (1, 2, 24)), constant)
    assert_close(pamr(image, masks.flip(1), 3, (1, 2, 24)), refined.flip(1))


def test_pamr_does_not_depend_on_how_the_work_is_cut(monkeypatch):
    image, masks = torch.rand(2, 3, 19, 31), torch.rand(2, 4, 19, 31)
    whole = pamr(image, masks, 2, (1, 4))
    monkeypatch.setattr(
        "maskfree.inference.refinement._BLOCK_VALUES", 2 * 4 * 31 * 2
    )  # two lines at a time
    assert_close(pamr(image, masks, 2, (1, 4)), whole)


def test_pamr_of_a_plain_image_is_a_plain_average():
    masks = torch.rand(1, 2, 9, 12)
    plain = pamr(torch.full((1, 3, 9, 12), 0.3), masks, 1, (1,))
    kernel = torch.tensor([[1.0, 1, 1], [1, 0, 1], [1, 1, 1]])[None, None] / 8
    padded = F.pad(masks, (1, 1, 1, 1), mode="replicate")
    assert_close(plain, F.conv2d(padded.transpose(0, 1), kernel).transpose(0, 1))


def test_pamr_knows_neither_unit_nor_offset_of_the_image():
    image, masks = (
        torch.rand(1, 3, 13, 17, dtype=torch.float64),
        torch.rand(1, 2, 13, 17, dtype=torch.float64),
    )
    assert_close(
        pamr(image * 255 - 30, masks, 2, (1, 3)),
        pamr(image, masks, 2, (1, 3)),
        atol=1e-6,
        rtol=1e-6,
    )


def test_no_iteration_only_enlarges():
    masks = torch.rand(1, 2, 3, 4)
    enlarged = pamr(torch.rand(1, 3, 9, 14), masks, iterations=0)
    assert_close(enlarged, F.interpolate(masks, (9, 14), mode="bilinear", align_corners=True))


def test_labels_without_refinement_are_those_of_the_patch_scores():
    scores, extent = torch.rand(5, 5, 7), (44 / 9, 62.5 / 9)  # the last patches are partly padding
    plain = refine("none", halves(), scores, extent)
    assert plain.shape == (5, *HALVES)
    expected, best = label_map(scores, size=HALVES, extent=extent)
    labels, again = label_map(plain, size=HALVES, extent=(float(HALVES[0]), float(HALVES[1])))
    assert np.array_equal(labels, expected)
    np.testing.assert_allclose(again.astype(np.float32), best.astype(np.float32), atol=1e-3)


@pytest.mark.parametrize("kind", ["pamr", "crf", "regions"])
def test_labels_follow_the_edge_of_the_photo(kind):
    if kind == "crf":
        pytest.importorskip("pydensecrf", reason="pydensecrf2 is not installed")
    wrong = {}
    for each in ("none", kind):
        scores = refine(each, halves(), patch_scores(), (44 / 9, 7.0), softness=0.05)
        extent = (float(scores.shape[1]), float(scores.shape[2]))
        labels, _ = label_map(scores, size=HALVES, extent=extent)
        wrong[each] = (labels != (np.arange(HALVES[1]) >= 27)).mean()
    assert wrong["none"] > 0.15
    assert wrong[kind] < wrong["none"] / 2


def test_a_threshold_may_join_pamr_as_a_class_or_be_taken_after_it():
    scores = patch_scores()
    with_threshold = torch.cat([scores, torch.full_like(scores[:1], 0.48)])
    joined = refine("pamr", halves(), with_threshold, (44 / 9, 7.0), cell_px=2)
    alone = refine("pamr", halves(), scores, (44 / 9, 7.0), cell_px=2)
    assert alone.shape == (2, 22, 32)
    background = alone.amax(0) < 0.48
    assert 0.1 < background.float().mean() < 0.9
    assert ((joined.argmax(0) == 2) == background).float().mean() > 0.999


def test_the_crf_returns_probabilities():
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is not installed")
    refined = refine("crf", halves(), patch_scores(), (44 / 9, 7.0), softness=0.1, cell_px=1)
    assert_close(refined.sum(0), torch.ones(refined.shape[1:]))
    assert 0 <= refined.min() < refined.max() <= 1
    probabilities = (
        (refine("none", halves(), patch_scores(), (44 / 9, 7.0)) / 0.1).softmax(0).numpy()
    )
    assert np.array_equal(refined.numpy(), dense_crf(halves(), probabilities))


def test_a_crf_without_weights_changes_nothing():
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is not installed")
    probabilities = torch.rand(3, *HALVES).softmax(0).numpy()
    refined = dense_crf(halves(), probabilities, smooth_weight=0.0, color_weight=0.0)
    np.testing.assert_allclose(refined, probabilities, atol=1e-5)


def test_the_missing_package_of_the_crf_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(ValueError, match="needs the package pydensecrf2: pip install pydensecrf2"):
        refine("crf", halves(), patch_scores(), (44 / 9, 7.0))


def test_wrong_settings_are_refused():
    with pytest.raises(
        ValueError, match="the refinement 'sharp' is unknown: choose from none, pamr, crf, regions"
    ):
        refine("sharp", halves(), patch_scores(), (4.0, 7.0))
    with pytest.raises(ValueError, match=r"cell_px 0 and softness 0\.05 must be positive"):
        refine("pamr", halves(), patch_scores(), (4.0, 7.0), cell_px=0)
    with pytest.raises(ValueError, match="softness 0 must be positive"):
        refine("crf", halves(), patch_scores(), (4.0, 7.0), softness=0.0)
    for iterations, dilations in ((-1, (1,)), (1, ()), (1, (2, 0))):
        with pytest.raises(ValueError, match="PAMR takes dilations of at least 1"):
            pamr(torch.rand(1, 3, 4, 6), torch.rand(1, 2, 4, 6), iterations, dilations)

"""Confusion matrices, scores and boundaries: closed forms, plain loops, numbers of the original
codes, bad input.
"""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskfree.metrics import (
    boundary_counts,
    boundary_f,
    boundary_scores,
    confusion,
    harmonic_mean,
    region_similarity,
    scores,
    sweep_confusions,
    tolerance_px,
)

IGNORE = 255


def test_confusion_counts_true_rows_and_predicted_columns():
    truth = np.array([[0, 0, 1], [2, IGNORE, 1]], dtype=np.uint8)
    predicted = np.array([[0, 2, 1], [0, 1, 1]], dtype=np.uint8)
    assert confusion(truth, predicted, num_classes=3).tolist() == [[1, 0, 1], [0, 2, 0], [1, 0, 0]]


@given(st.integers(0, 2**32 - 1), st.sampled_from([(7, 255), (255, 255), (300, 65535)]))
def test_every_path_counts_like_the_plain_loop(seed, case):
    num_classes, ignore = case
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, num_classes, (2, 5, 9))
    truth[rng.random(truth.shape) < 0.3] = ignore
    expected = np.zeros((num_classes, num_classes), dtype=np.int64)
    for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
        if t != ignore:
            expected[t, p] += 1
    assert np.array_equal(confusion(truth, predicted, num_classes, ignore), expected)
    assert np.array_equal(
        confusion(torch.tensor(truth), torch.tensor(predicted), num_classes, ignore), expected
    )


def test_scores_in_closed_form():
    # class 0: 3 of 4 found; class 1 present and never found; class 2 predicted only; class 3 absent
    # in both
    found = scores(np.array([[3, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_allclose(found.iou, [3 / 5, 0, 0, np.nan])
    np.testing.assert_allclose(found.accuracy, [3 / 4, 0, np.nan, np.nan])
    assert found.mean_iou == pytest.approx(0.2)
    assert found.pixel_accuracy == pytest.approx(3 / 5)
    assert found.mean_accuracy == pytest.approx(3 / 8)
    assert found.frequency_weighted_iou == pytest.approx(4 / 5 * 3 / 5)


def test_iou_is_summed_over_the_set_and_not_averaged_per_photo():
    small = confusion(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), 2)
    large = confusion(np.zeros((3, 3), np.uint8), np.ones((3, 3), np.uint8), 2)
    assert scores(small + large).iou[0] == pytest.approx(1 / 10)


def test_nothing_counted_gives_nan_without_a_warning():
    empty = scores(confusion(np.full((2, 3), IGNORE, np.uint8), np.zeros((2, 3), np.uint8), 2))
    ratios = [
        empty.mean_iou,
        empty.pixel_accuracy,
        empty.mean_accuracy,
        empty.frequency_weighted_iou,
    ]
    assert np.isnan(ratios).all()


def test_harmonic_mean_of_seen_and_unseen():
    assert harmonic_mean(0.6, 0.3) == pytest.approx(0.4)
    assert harmonic_mean(0.6, 0.0) == harmonic_mean(0.0, 0.0) == 0
    assert math.isnan(harmonic_mean(math.nan, 0.0)) and math.isnan(harmonic_mean(0.6, math.nan))


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([[0, 7]], [[0, 0]], "id 7 in the true map is no class: ids run from 0 to 1"),
        ([[0, 1]], [[0, 2]], "id 2 in the predicted map is no class: ids run from 0 to 1"),
        ([[0, 1]], [[0, -1]], "id -1 in the predicted map"),
        ([[0, 300]], [[0, 0]], "id 300 in the true map"),
        ([[0, 1]], [[0], [1]], "the predicted map is 1x2 and the true one 2x1"),
    ],
)
def test_wrong_maps_are_refused(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion(np.array(truth), np.array(predicted), num_classes=2)
    with pytest.raises(ValueError, match=message):
        confusion(torch.tensor(truth), torch.tensor(predicted), num_classes=2)


def test_an_ignored_pixel_may_be_predicted_as_anything():
    assert confusion(np.array([[IGNORE]]), np.array([[99]]), num_classes=2).sum() == 0
    assert confusion(torch.tensor([[IGNORE]]), torch.tensor([[99]]), num_classes=2).sum() == 0


def test_an_array_and_a_tensor_do_not_mix():
    with pytest.raises(ValueError, match="both be arrays, or both be tensors"):
        confusion(np.array([[0, 1]]), torch.tensor([[0, 1]]), num_classes=2)


@pytest.mark.gpu
def test_an_accelerator_counts_the_same():
    truth, predicted = np.random.default_rng(0).integers(0, 6, (2, 31, 44))
    on_device = torch.tensor(truth, device="cuda"), torch.tensor(predicted, device="cuda")
    assert np.array_equal(confusion(*on_device, 6), confusion(truth, predicted, 6))


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float16, np.float32]))
def test_a_sweep_equals_a_run_per_threshold(seed, dtype):
    rng = np.random.default_rng(seed)
    truth, labels = rng.integers(0, 5, (2, 6, 11))
    truth[rng.random(truth.shape) < 0.2] = IGNORE
    thresholds = [-0.5, 0.1, 0.1, 0.25, 0.3, 0.35, 0.9]  # 0.1 and 0.3 are not exact in float16
    winning = rng.choice(
        [0.0, 0.099976, 0.1, 0.25, 0.3, 0.30004883, 0.34, 0.95], truth.shape
    ).astype(dtype)
    winning[0, 0] = np.nan
    expected = []
    for threshold in thresholds:
        kept = labels.copy()
        kept[winning < threshold] = 4
        expected.append(confusion(truth, kept, 5))
    assert np.array_equal(sweep_confusions(truth, labels, winning, thresholds, 4, 5), expected)


def test_a_sweep_refuses_what_makes_no_sense():
    truth, winning = np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.float16)
    for thresholds in ([0.3, 0.2], [math.nan]):
        with pytest.raises(ValueError, match="must ascend"):
            sweep_confusions(truth, truth, winning, thresholds, 1, 2)
    with pytest.raises(ValueError, match="the scores map is 2x3 and the true one 3x2"):
        sweep_confusions(truth, truth, winning.T, [0.2], 1, 2)
    with pytest.raises(ValueError, match="id 2 in the predicted map"):
        sweep_confusions(truth, truth + 2, winning, [0.2], 1, 2)


def test_boundary_counts_in_closed_form():
    # Two rectangles 4 high and 6 wide, the second 2 columns further right. A boundary pixel differs
    # from its right,
    # lower or lower right neighbor: the boundaries are frames 5 high and 7 wide of 20 pixels, from
    # columns 4 and 6 on.
    truth, predicted = np.zeros((12, 20), np.uint8), np.zeros((12, 20), np.uint8)
    truth[4:8, 5:11] = predicted[4:8, 7:13] = 1
    for tolerance, matched in (
        (0.0, 2 * 5),
        (1.0, 2 * 6 + 2),
        (2.0, 20),
    ):  # 1: also two of the short side inside the other
        counts = boundary_counts(truth, predicted, num_classes=3, tolerance=tolerance)
        assert counts[1].tolist() == [matched, 20, matched, 20]
        assert (
            counts[0].tolist() == counts[1].tolist()
        )  # what is not the rectangle has the same boundary
        assert counts[2].tolist() == [0, 0, 0, 0]
    found = boundary_scores(counts + boundary_counts(truth, 0 * truth, 3, tolerance=2.0))
    np.testing.assert_allclose(found.precision, [1, 1, np.nan])
    np.testing.assert_allclose(found.recall, [0.5, 0.5, np.nan])
    np.testing.assert_allclose(found.f, [2 / 3, 2 / 3, np.nan])
    assert found.mean_f == pytest.approx(2 / 3)


def test_a_class_in_only_one_of_the_maps_scores_zero():
    found = boundary_scores(np.array([[0, 7, 0, 0], [0, 0, 0, 9], [0, 0, 0, 0]]))
    np.testing.assert_array_equal(found.f, [0, 0, np.nan])
    np.testing.assert_array_equal(found.precision, [0, np.nan, np.nan])
    np.testing.assert_array_equal(found.recall, [np.nan, 0, np.nan])
    assert found.mean_f == 0


def test_boundaries_near_ignored_pixels_do_not_count():
    truth = np.zeros((30, 40), np.uint8)
    truth[:, 20:] = 1
    ignored = truth.copy()
    ignored[10:] = IGNORE
    counts = boundary_counts(ignored, truth, num_classes=2, tolerance=3.0)
    assert (
        counts.tolist() == [[7, 7, 7, 7]] * 2
    )  # of the 10 known lines, those further than 3 from an ignored one
    assert boundary_counts(np.full_like(truth, IGNORE), truth, num_classes=2).sum() == 0


def test_where_the_truth_borders_on_ignored_pixels_is_no_boundary():
    truth, predicted = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    truth[:, 12:] = IGNORE
    predicted[:, :9] = (
        # its boundary, column 8, is 3 from column 11, which would be a boundary if IGNORE were a
        # class
        1
    )
    assert boundary_counts(truth, predicted, num_classes=2, tolerance=3.0)[0].tolist() == [
        0,
        20,
        0,
        0,
    ]


@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_boundary_counts_equal_a_search_over_all_pairs(seed, radius):
    rng = np.random.default_rng(seed)
    truth, predicted = np.repeat(np.repeat(rng.integers(0, 3, (2, 3, 4)), 4, axis=1), 3, axis=2)
    counts = boundary_counts(truth, predicted, num_classes=3, tolerance=float(radius))
    for index in range(3):
        true, found = (edge_points(labels == index) for labels in (truth, predicted))
        near = ((true[:, None] - found[None]) ** 2).sum(-1) <= radius**2
        assert counts[index].tolist() == [
            near.any(0).sum(),
            len(found),
            near.any(1).sum(),
            len(true),
        ]
        if len(true) or len(found):
            assert boundary_scores(counts).f[index] == boundary_f(
                truth == index, predicted == index, float(radius)
            )


def edge_points(mask):
    height, width = mask.shape
    points = [
        (y, x)
        for y in range(height)
        for x in range(width)
        if any(
            mask[y, x] != mask[v, u]
            for v in (y, y + 1)
            for u in (x, x + 1)
            if v < height and u < width
        )
    ]
    return np.array(points, dtype=int).reshape(-1, 2)


def test_the_tolerance_of_boundaries_is_rounded_up_to_pixels():
    assert tolerance_px(0.0075, (480, 640)) == 6
    assert tolerance_px(0.008, (480, 854)) == 8  # 7.8
    assert tolerance_px(2.5, (480, 640)) == 3
    with pytest.raises(ValueError, match="tolerance of a boundary is -1"):
        tolerance_px(-1.0, (480, 640))


def test_masks_of_different_sizes_are_refused():
    mask = np.zeros((4, 6), bool)
    for function in (region_similarity, boundary_f):
        with pytest.raises(ValueError, match="the predicted map is 4x6 and the true one 6x4"):
            function(mask, mask.T)
        with pytest.raises(ValueError, match="the void map is 4x6 and the true one 6x4"):
            function(mask, mask, void=mask.T)


@pytest.mark.real
@pytest.mark.parametrize("case", ["plain", "reduce_zero"])
def test_parity_with_mmsegmentation(shared, fixture_tensors, case):
    tensors = {name: tensor.numpy() for name, tensor in fixture_tensors("miou_metrics").items()}
    cases = json.loads((shared / "fixtures" / "miou_metrics.json").read_text())["hyper_parameters"][
        "cases"
    ]
    (setting,) = (c for c in cases if c["name"] == case)
    matrix = np.zeros((setting["num_classes"],) * 2, dtype=np.int64)
    for i in range(setting["images"]):
        truth = tensors[f"in.{case}.gt{i}"]
        if setting["reduce_zero_label"]:
            truth = np.where((truth == 0) | (truth == IGNORE), IGNORE, truth - 1)
        matrix += confusion(
            truth, tensors[f"in.{case}.pred{i}"], setting["num_classes"], setting["ignore_index"]
        )
    assert np.array_equal(matrix.diagonal(), tensors[f"mid.{case}.area_intersect"])
    assert np.array_equal(matrix.sum(0), tensors[f"mid.{case}.area_pred"])
    assert np.array_equal(matrix.sum(1), tensors[f"mid.{case}.area_label"])
    found = scores(matrix)
    np.testing.assert_allclose(
        np.nan_to_num(found.iou, nan=-1), tensors[f"out.{case}.IoU"], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        np.nan_to_num(found.accuracy, nan=-1), tensors[f"out.{case}.Acc"], rtol=0, atol=1e-6
    )
    for value, name in (
        (found.mean_iou, "mIoU"),
        (found.pixel_accuracy, "aAcc"),
        (found.mean_accuracy, "mAcc"),
    ):
        assert value == pytest.approx(tensors[f"out.{case}.{name}"].item(), abs=1e-6)


@pytest.mark.real
def test_parity_with_davis(shared, fixture_tensors):
    tensors = {name: tensor.numpy() for name, tensor in fixture_tensors("davis_metrics").items()}
    settings = json.loads((shared / "fixtures" / "davis_metrics.json").read_text())[
        "hyper_parameters"
    ]
    for pair in settings["pairs"]:
        name = pair["name"]
        if "H" in pair:
            shapes = (tensors[f"in.{name}.{which}_shapes"] for which in ("gt", "pred"))
            truth, predicted = (drawn(each, (pair["H"], pair["W"])) for each in shapes)
        else:
            truth, predicted = (tensors[f"in.{name}.{which}"] > 0 for which in ("gt", "pred"))
        void = tensors[f"in.{name}.void"] > 0 if f"in.{name}.void" in tensors else None
        assert tolerance_px(float(pair["bound_th"]), truth.shape) == pair["bound_pix"]
        found = (
            region_similarity(truth, predicted, void),
            boundary_f(truth, predicted, float(pair["bound_th"]), void),
        )
        expected = (tensors[f"out.{name}.J"].item(), tensors[f"out.{name}.F"].item())
        assert found == pytest.approx(expected, abs=1e-6), name
    truth, predicted = tensors["in.seq.gt"], tensors["in.seq.pred"]
    for index, frame in np.ndindex(tensors["out.seq.J_per_frame"].shape):
        masks = truth[frame] == index + 1, predicted[frame] == index + 1
        assert region_similarity(*masks) == pytest.approx(
            tensors["out.seq.J_per_frame"][index, frame], abs=1e-6
        )
        assert boundary_f(*masks) == pytest.approx(
            tensors["out.seq.F_per_frame"][index, frame], abs=1e-6
        )


def drawn(shapes, size):
    """Rectangles (0), ellipses (1) and elliptic holes (2) with center and radii, drawn one over the
    other.
    """
    y, x = np.indices(size)
    mask = np.zeros(size, bool)
    for kind, center_y, center_x, radius_y, radius_x in shapes:
        dy, dx = y - center_y, x - center_x
        ellipse = dy**2 * radius_x**2 + dx**2 * radius_y**2 <= radius_x**2 * radius_y**2
        if kind == 0:
            mask |= (abs(dy) <= radius_y) & (abs(dx) <= radius_x)
        else:
            mask = mask | ellipse if kind == 1 else mask & ~ellipse
    return mask

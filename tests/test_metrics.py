"""Confusion matrix and scores: closed forms, the fixtures of mmsegmentation's own code, and bad input."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfree.metrics import confusion, scores

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


def test_scores_in_closed_form():
    # class 0: 3 of 4 found; class 1 present and never found; class 2 predicted only; class 3 absent in both
    found = scores(np.array([[3, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_allclose(found.iou, [3 / 5, 0, 0, np.nan])
    np.testing.assert_allclose(found.accuracy, [3 / 4, 0, np.nan, np.nan])
    assert found.mean_iou == pytest.approx(0.2)
    assert found.pixel_accuracy == pytest.approx(3 / 5)
    assert found.mean_accuracy == pytest.approx(3 / 8)


def test_iou_is_summed_over_the_set_and_not_averaged_per_photo():
    small = confusion(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8), 2)
    large = confusion(np.zeros((3, 3), np.uint8), np.ones((3, 3), np.uint8), 2)
    assert scores(small + large).iou[0] == pytest.approx(1 / 10)


def test_nothing_counted_gives_nan_without_a_warning():
    empty = scores(confusion(np.full((2, 3), IGNORE, np.uint8), np.zeros((2, 3), np.uint8), 2))
    assert np.isnan([empty.mean_iou, empty.pixel_accuracy, empty.mean_accuracy]).all()


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


def test_an_ignored_pixel_may_be_predicted_as_anything():
    assert confusion(np.array([[IGNORE]]), np.array([[99]]), num_classes=2).sum() == 0


@pytest.mark.real
@pytest.mark.parametrize("case", ["plain", "reduce_zero"])
def test_parity_with_mmsegmentation(shared, fixture_tensors, case):
    tensors = {name: tensor.numpy() for name, tensor in fixture_tensors("miou_metrics").items()}
    cases = json.loads((shared / "fixtures" / "miou_metrics.json").read_text())["hyper_parameters"]["cases"]
    (setting,) = (c for c in cases if c["name"] == case)
    matrix = np.zeros((setting["num_classes"],) * 2, dtype=np.int64)
    for i in range(setting["images"]):
        truth = tensors[f"in.{case}.gt{i}"]
        if setting["reduce_zero_label"]:
            truth = np.where((truth == 0) | (truth == IGNORE), IGNORE, truth - 1)
        matrix += confusion(truth, tensors[f"in.{case}.pred{i}"], setting["num_classes"], setting["ignore_index"])
    assert np.array_equal(matrix.diagonal(), tensors[f"mid.{case}.area_intersect"])
    assert np.array_equal(matrix.sum(0), tensors[f"mid.{case}.area_pred"])
    assert np.array_equal(matrix.sum(1), tensors[f"mid.{case}.area_label"])
    found = scores(matrix)
    np.testing.assert_allclose(np.nan_to_num(found.iou, nan=-1), tensors[f"out.{case}.IoU"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.nan_to_num(found.accuracy, nan=-1), tensors[f"out.{case}.Acc"], rtol=0, atol=1e-6)
    for value, name in ((found.mean_iou, "mIoU"), (found.pixel_accuracy, "aAcc"), (found.mean_accuracy, "mAcc")):
        assert value == pytest.approx(tensors[f"out.{case}.{name}"].item(), abs=1e-6)

"""Confusion matrices of label maps, counted fast and checked for unknown ids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor

from maskfree.ops.ignore import IGNORE


def confusion(
    truth: Integer[np.ndarray, "h w"] | Integer[Tensor, "h w"],
    predicted: Integer[np.ndarray, "h w"] | Integer[Tensor, "h w"],
    num_classes: int,
    ignore: int = IGNORE,
) -> Int64[np.ndarray, "k k"]:
    """Count pixels by true class (rows) and predicted class (columns).

    Tensors are counted on their device; only the matrix is copied to the host.

    Args:
        truth: True class of each pixel.
        predicted: Predicted class of each pixel.
        num_classes: Number of classes; ids run from 0 on.
        ignore: True id of pixels that do not count; not a class.

    Returns:
        Confusion matrix in pixels.

    Raises:
        ValueError: The maps differ in size, one is a tensor and the other is not, or one contains
            an id that is no class.

    Example:
        >>> confusion(np.array([[0, 1, 255]]), np.array([[0, 0, 1]]), num_classes=2).tolist()
        [[1, 0], [1, 0]]
    """
    assert ignore >= num_classes, "the ignored id must not be a class"
    check_sizes(truth, predicted)
    if isinstance(truth, Tensor) and isinstance(predicted, Tensor):
        return _confusion_of_tensors(truth, predicted, num_classes, ignore)
    if not (isinstance(truth, np.ndarray) and isinstance(predicted, np.ndarray)):
        raise ValueError("the true and the predicted map must both be arrays, or both be tensors")

    # Counting pairs packed into 16 bits is the fastest way.
    if _fits_a_byte(truth) and _fits_a_byte(predicted):
        packed = truth.astype(np.uint16) << 8 | predicted.astype(np.uint16)
        table = np.bincount(packed.ravel(), minlength=1 << 16).reshape(256, 256)
        _check(np.flatnonzero(table.any(axis=1)), num_classes, ignore, "true")
        table = table[:num_classes]
        _check(np.flatnonzero(table.any(axis=0)), num_classes, ignore=None, which="predicted")
        return table[:, :num_classes].astype(np.int64)

    # Other ids need a wider type; ignored pixels are dropped before counting.
    _check(np.unique(truth), num_classes, ignore, "true")
    counts = truth != ignore
    rows, columns = truth[counts].astype(np.int64), predicted[counts].astype(np.int64)
    _check(np.unique(columns), num_classes, ignore=None, which="predicted")

    return np.bincount(rows * num_classes + columns, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


def sweep_confusions(
    truth: Integer[np.ndarray, "h w"],
    labels: Integer[np.ndarray, "h w"],
    winning: Float[np.ndarray, "h w"],
    thresholds: Sequence[float],
    background_id: int,
    num_classes: int,
    ignore: int = IGNORE,
) -> Int64[np.ndarray, "t k k"]:
    """Compute the confusion matrices of several background thresholds in one pass.

    Equal to `confusion` after `labels[winning < threshold] = background_id` for each threshold. As
    there, a threshold is rounded to the scores' own precision, and a score equal to it keeps its
    label.

    Args:
        truth: True class of each pixel.
        labels: Predicted class of each pixel before thresholding.
        winning: Winning score of each pixel.
        thresholds: Thresholds in ascending order.
        background_id: Class of the pixels whose score is below the threshold.
        num_classes: Number of classes, including the background.
        ignore: True id of pixels that do not count; not a class.

    Returns:
        One confusion matrix per threshold.

    Raises:
        ValueError: As in `confusion`; or the scores have another size, or the thresholds do not
            ascend.
    """
    assert 0 <= background_id < num_classes, "the background must be a class"
    # Raises if the maps are wrong.
    confusion(truth, labels, num_classes, ignore)
    check_sizes(truth, winning, "scores")
    if not all(
        low <= high
        for low, high in zip([-math.inf, *thresholds], [*thresholds, math.inf], strict=True)
    ):
        raise ValueError(f"the thresholds {list(thresholds)} must ascend")

    edges = np.array([float(threshold) for threshold in thresholds]).astype(winning.dtype)
    counts = truth != ignore
    # Number of thresholds at which each pixel keeps its label.
    survived = np.searchsorted(edges, winning[counts], side="right")

    # Count pixels by the number of thresholds survived, true class and label.
    pairs = truth[counts].astype(np.int64) * num_classes + labels[counts].astype(np.int64)
    shape = (len(edges) + 1, num_classes, num_classes)
    by_survived = np.bincount(
        survived * num_classes**2 + pairs, minlength=math.prod(shape)
    ).reshape(shape)
    # A label is kept at threshold t if it survives more than t thresholds.
    kept = by_survived[::-1].cumsum(axis=0)[::-1][1:].copy()

    # All other pixels of a true class are predicted as background.
    kept[:, :, background_id] += by_survived.sum(axis=(0, 2)) - kept.sum(axis=2)
    return kept


def _confusion_of_tensors(
    truth: Tensor, predicted: Tensor, num_classes: int, ignore: int
) -> Int64[np.ndarray, "k k"]:
    """Count on the device, with extra rows and columns for wrong and ignored ids."""
    rows, columns = truth.long(), predicted.long()
    columns = torch.where((columns >= 0) & (columns < num_classes), columns, num_classes)
    ignored = rows == ignore
    rows = torch.where((rows >= 0) & (rows < num_classes), rows, num_classes).masked_fill(
        ignored, num_classes + 1
    )

    shape = (num_classes + 2, num_classes + 1)
    table = (
        torch.bincount((rows * shape[1] + columns).ravel(), minlength=math.prod(shape))
        .reshape(shape)
        .cpu()
        .numpy()
    )

    # Only wrong ids, which are rare, need a search for the id to report.
    if table[num_classes].any():
        _check(truth.unique().cpu().numpy(), num_classes, ignore, "true")
    if table[:num_classes, num_classes].any():
        _check(
            predicted[~ignored].unique().cpu().numpy(), num_classes, ignore=None, which="predicted"
        )

    return table[:num_classes, :num_classes].copy()


def _fits_a_byte(labels: Integer[np.ndarray, "h w"]) -> bool:
    """Whether all labels are in [0, 255]."""
    return (
        labels.dtype == np.uint8
        or (labels.size == 0)
        or bool(labels.min() >= 0 and labels.max() <= 255)
    )


def _check(
    ids: Integer[np.ndarray, " n"], num_classes: int, ignore: int | None, which: str
) -> None:
    """Raise if an id is neither a class nor ignored."""
    wrong = [int(i) for i in ids if not 0 <= i < num_classes and i != ignore]
    if wrong:
        raise ValueError(
            f"id {wrong[0]} in the {which} map is no class: ids run from 0 to {num_classes - 1}"
        )


def check_sizes(
    truth: np.ndarray | Tensor, other: np.ndarray | Tensor, which: str = "predicted"
) -> None:
    """Check that two maps are equal in size.

    Args:
        truth: The true map.
        other: The map that is compared with it.
        which: Name of the other map, for the message.

    Raises:
        ValueError: The maps differ in size.
    """
    if truth.shape != other.shape:
        raise ValueError(
            f"the {which} map is {_size(other)} and the true one {_size(truth)}: they must be equal"
        )


def _size(labels: np.ndarray | Tensor) -> str:
    """Size of a map, as widthxheight."""
    return f"{labels.shape[1]}x{labels.shape[0]}"

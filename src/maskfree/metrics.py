"""From label maps to scores: the confusion matrix of a whole data set, and IoU and accuracy read off it.

Counts are summed over all photos before any ratio is taken; averaging a ratio per photo gives another number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer


def confusion(
    truth: Integer[np.ndarray, "h w"], predicted: Integer[np.ndarray, "h w"], num_classes: int, ignore: int = 255
) -> Int64[np.ndarray, "k k"]:
    """Count pixels by true class (rows) and predicted class (columns); pixels whose truth is IGNORE do not count.

    >>> confusion(np.array([[0, 1, 255]]), np.array([[0, 0, 1]]), num_classes=2).tolist()
    [[1, 0], [1, 0]]

    Raises:
        ValueError: the maps differ in size, or hold an id that is no class.
    """
    assert ignore >= num_classes, "the ignored id must not be a class"
    if truth.shape != predicted.shape:
        raise ValueError(f"the predicted map is {_size(predicted)} and the true one {_size(truth)}: they must be equal")
    if _fits_a_byte(truth) and _fits_a_byte(predicted):  # a 64 K table of packed pairs is the fastest count there is
        packed = truth.astype(np.uint16) << 8 | predicted.astype(np.uint16)
        table = np.bincount(packed.ravel(), minlength=1 << 16).reshape(256, 256)
        _check(np.flatnonzero(table.any(axis=1)), num_classes, ignore, "true")
        table = table[:num_classes]
        _check(np.flatnonzero(table.any(axis=0)), num_classes, ignore=None, which="predicted")
        return table[:, :num_classes].astype(np.int64)
    _check(np.unique(truth), num_classes, ignore, "true")
    counts = truth != ignore
    rows, columns = truth[counts].astype(np.int64), predicted[counts].astype(np.int64)
    _check(np.unique(columns), num_classes, ignore=None, which="predicted")
    return np.bincount(rows * num_classes + columns, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Scores:
    """Scores in [0, 1] of one data set; a ratio without pixels is NaN and left out of the means.

    A class that is predicted but absent from the truth counts as IoU 0; absent in both, it is NaN.
    Source: mmsegmentation 0.18, eval_metrics.
    """

    iou: Float64[np.ndarray, " k"]
    accuracy: Float64[np.ndarray, " k"]  # share of a class's pixels that are found
    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float


def scores(matrix: Int64[np.ndarray, "k k"]) -> Scores:
    """Read the scores off the confusion matrix of a whole data set.

    >>> scores(np.array([[1, 0], [1, 0]])).mean_iou
    0.25
    """
    hits, truths, predictions = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    iou = _ratio(hits, truths + predictions - hits)
    accuracy = _ratio(hits, truths)
    pixel_accuracy = _ratio(hits.sum(keepdims=True), truths.sum(keepdims=True)).item()
    return Scores(iou, accuracy, _mean(iou), pixel_accuracy, _mean(accuracy))


def _ratio(part: Int64[np.ndarray, " k"], whole: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(ratios: Float64[np.ndarray, " k"]) -> float:
    known = ratios[~np.isnan(ratios)]
    return float(known.mean()) if len(known) else float("nan")


def _fits_a_byte(labels: Integer[np.ndarray, "h w"]) -> bool:
    return labels.dtype == np.uint8 or (labels.size == 0) or bool(labels.min() >= 0 and labels.max() <= 255)


def _check(ids: Integer[np.ndarray, " n"], num_classes: int, ignore: int | None, which: str) -> None:
    wrong = [int(i) for i in ids if not 0 <= i < num_classes and i != ignore]
    if wrong:
        raise ValueError(f"id {wrong[0]} in the {which} map is no class: ids run from 0 to {num_classes - 1}")


def _size(labels: Integer[np.ndarray, "h w"]) -> str:
    return f"{labels.shape[1]}x{labels.shape[0]}"

"""IoU and accuracy of a data set, from its confusion matrix.

Counts are summed over all photos before a ratio is taken, as averaging ratios per photo gives other
numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True)
class SegmentationScores:
    """Segmentation scores of one data set, in [0, 1].

    A ratio without pixels is NaN and left out of the means. A class that is predicted but absent
    from the truth has IoU 0; absent in both, NaN.

    Source: mmsegmentation 0.18, eval_metrics; frequency-weighted IoU: Long et al. 2015, section 5
    (arXiv:1411.4038).
    """

    iou: Float64[np.ndarray, " k"]
    """Intersection over union of each class."""
    accuracy: Float64[np.ndarray, " k"]
    """Share of the true pixels of each class that are predicted so."""
    mean_iou: float
    """Mean IoU over the classes."""
    pixel_accuracy: float
    """Share of all pixels whose class is right."""
    mean_accuracy: float
    """Mean accuracy over the classes."""
    frequency_weighted_iou: float
    """IoU weighted by each class's share of the true pixels."""


def scores(matrix: Int64[np.ndarray, "k k"]) -> SegmentationScores:
    """Compute segmentation scores from the confusion matrix of a whole data set.

    Args:
        matrix: Pixels by true class (rows) and predicted class (columns).

    Returns:
        Scores per class and their means.

    Example:
        >>> scores(np.array([[1, 0], [1, 0]])).mean_iou
        0.25
    """
    hits, truths, predictions = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    iou = ratio(hits, truths + predictions - hits)
    accuracy = ratio(hits, truths)

    # Without any counted pixel every mean is NaN.
    total = truths.sum(keepdims=True)
    pixel_accuracy = ratio(hits.sum(keepdims=True), total).item()
    weighted = math.nan
    if total.item():
        weighted = float((truths * np.nan_to_num(iou)).sum() / total.item())

    return SegmentationScores(
        iou=iou,
        accuracy=accuracy,
        mean_iou=mean_of_known(iou),
        pixel_accuracy=pixel_accuracy,
        mean_accuracy=mean_of_known(accuracy),
        frequency_weighted_iou=weighted,
    )


def harmonic_mean(a: float, b: float) -> float:
    """Compute the harmonic mean of two scores, such as those of seen and unseen classes.

    Args:
        a: Score in [0, 1].
        b: Score in [0, 1].

    Returns:
        Mean in [0, 1]: 0 if one score is 0, NaN if one is NaN.

    Source: Xian et al. 2017, section 4.2 (arXiv:1707.00600).

    Example:
        >>> harmonic_mean(0.75, 0.25)
        0.375
    """
    if a + b == 0:
        return 0.0
    return 2 * a * b / (a + b)


def ratio(
    part: Int64[np.ndarray, " k"], whole: Int64[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    """Divide counts.

    Args:
        part: Counts that are a part of `whole`.
        whole: Counts to divide by.

    Returns:
        Quotients in [0, 1]; NaN where `whole` is 0.
    """
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def mean_of_known(ratios: Float64[np.ndarray, " k"]) -> float:
    """Take the mean over the entries that are not NaN.

    Args:
        ratios: Ratios per class.

    Returns:
        Their mean; NaN if all are NaN.
    """
    known = ratios[~np.isnan(ratios)]
    if not len(known):
        return math.nan
    return float(known.mean())

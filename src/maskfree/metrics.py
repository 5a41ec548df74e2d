"""Segmentation metrics: confusion matrices, IoU, accuracy, and region and boundary scores.

Counts are summed over all photos before a ratio is taken, as averaging ratios per photo gives other
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer
from torch import Tensor


def confusion(
    truth: Integer[np.ndarray, "h w"] | Integer[Tensor, "h w"],
    predicted: Integer[np.ndarray, "h w"] | Integer[Tensor, "h w"],
    num_classes: int,
    ignore: int = 255,
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
    _check_sizes(truth, predicted)
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
    ignore: int = 255,
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
    _check_sizes(truth, winning, "scores")
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
    iou = _ratio(hits, truths + predictions - hits)
    accuracy = _ratio(hits, truths)

    # Without any counted pixel every mean is NaN.
    total = truths.sum(keepdims=True)
    pixel_accuracy = _ratio(hits.sum(keepdims=True), total).item()
    weighted = (
        float((truths * np.nan_to_num(iou)).sum() / total.item()) if total.item() else math.nan
    )
    return SegmentationScores(iou, accuracy, _mean(iou), pixel_accuracy, _mean(accuracy), weighted)


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
    return 2 * a * b / (a + b) if a + b != 0 else 0.0


def region_similarity(
    truth: Bool[np.ndarray, "h w"],
    predicted: Bool[np.ndarray, "h w"],
    void: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Compute the intersection over union of two masks (DAVIS's J).

    Args:
        truth: True mask.
        predicted: Predicted mask.
        void: Pixels that do not count; None: all count.

    Returns:
        IoU in [0, 1]; 1 for two empty masks.

    Raises:
        ValueError: The masks differ in size.

    Source: Perazzi et al. 2016, section 3; davis2017-evaluation, db_eval_iou.
    """
    truth, predicted = _outside(void, truth, predicted)
    union = np.count_nonzero(truth | predicted)
    return np.count_nonzero(truth & predicted) / union if union else 1.0


def boundary_f(
    truth: Bool[np.ndarray, "h w"],
    predicted: Bool[np.ndarray, "h w"],
    tolerance: float = 0.008,
    void: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Compute the F-score of the boundaries of two masks (DAVIS's F).

    Args:
        truth: True mask.
        predicted: Predicted mask.
        tolerance: Distance within which boundary pixels match, as `tolerance_px` takes it.
        void: Pixels that are cleared in both masks first; None: none.

    Returns:
        F-score in [0, 1]: 1 without any boundary, 0 with only one of the two.

    Raises:
        ValueError: The masks differ in size, or the tolerance is negative.

    Source: Perazzi et al. 2016, section 3; davis2017-evaluation, db_eval_boundary.
    """
    truth, predicted = (_boundary(mask) for mask in _outside(void, truth, predicted))
    if not truth.any() and not predicted.any():
        return 1.0
    counts = _match(truth, predicted, tolerance_px(tolerance, truth.shape))
    return float(boundary_scores(counts[None]).f[0])


def tolerance_px(tolerance: float, size: tuple[int, ...]) -> int:
    """Convert a boundary tolerance to pixels.

    Args:
        tolerance: Below 1 a share of the image diagonal, rounded up; from 1 on pixels, rounded up.
        size: Height and width in pixels.

    Returns:
        Distance in pixels within which boundaries match.

    Raises:
        ValueError: The tolerance is negative.

    Example:
        >>> tolerance_px(0.0075, (480, 640)), tolerance_px(3.0, (480, 640))
        (6, 3)
    """
    if not tolerance >= 0:
        raise ValueError(f"the tolerance of a boundary is {tolerance:g}: it must not be negative")
    return math.ceil(tolerance if tolerance >= 1 else tolerance * math.hypot(*size))


def boundary_counts(
    truth: Integer[np.ndarray, "h w"],
    predicted: Integer[np.ndarray, "h w"],
    num_classes: int,
    ignore: int = 255,
    tolerance: float = 0.0075,
) -> Int64[np.ndarray, "k 4"]:
    """Count matched and all boundary pixels of each class.

    A pixel matches if the other map has a boundary pixel of the class within `tolerance_px`. Pixels
    as near to ignored truth do not count, as their match may lie there, and the border of an
    ignored area is no boundary. Sum the counts of all photos before `boundary_scores`.

    Args:
        truth: True class of each pixel.
        predicted: Predicted class of each pixel.
        num_classes: Number of classes; ids run from 0 on.
        ignore: True id of pixels that do not count; not a class.
        tolerance: Distance within which boundary pixels match, as `tolerance_px` takes it.

    Returns:
        Per class: matched predicted, predicted, matched true and true boundary pixels.

    Raises:
        ValueError: The maps differ in size or contain an id that is no class, or the tolerance is
            negative.

    Source: Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?",
    section 2.2, with its tolerance.
    Differs: the boundary pixels are those of DAVIS, and ratios are taken of the whole set, not per
    photo.
    """
    matrix = confusion(truth, predicted, num_classes, ignore)
    radius = tolerance_px(tolerance, truth.shape)
    known = truth != ignore
    # At least 2: the boundary of a class reaches to its diagonal neighbors.
    certain = ~_dilate(~known, max(radius, 2))

    counts = np.zeros((num_classes, 4), dtype=np.int64)
    for index in np.flatnonzero(matrix.any(axis=0) | matrix.any(axis=1)):
        true, found = truth == index, predicted == index
        # The bounding box of the class saves most of the work on large photos.
        box = _box(true | found)
        edges = _boundary(true[box], known[box]), _boundary(found[box])
        counts[index] = _match(*edges, radius, certain[box])

    return counts


@dataclass(frozen=True)
class BoundaryScores:
    """Boundary scores in [0, 1] of each class; NaN without pixels, and left out of the mean."""

    precision: Float64[np.ndarray, " k"]
    """Share of the predicted boundary pixels that match."""
    recall: Float64[np.ndarray, " k"]
    """Share of the true boundary pixels that match."""
    f: Float64[np.ndarray, " k"]
    """Harmonic mean of precision and recall; 0 where only one of the two maps has a boundary."""
    mean_f: float
    """Mean F-score over the classes."""


def boundary_scores(counts: Int64[np.ndarray, "k 4"]) -> BoundaryScores:
    """Compute boundary scores from the `boundary_counts` of a whole data set.

    Args:
        counts: Sum of the counts of all photos.

    Returns:
        Scores per class and their mean.

    Example:
        >>> boundary_scores(np.array([[3, 4, 2, 4]])).f.tolist()
        [0.6]
    """
    precision, recall = _ratio(counts[:, 0], counts[:, 1]), _ratio(counts[:, 2], counts[:, 3])

    # A boundary in only one of the maps scores 0, in neither NaN.
    both = np.nan_to_num(precision), np.nan_to_num(recall)
    f = np.array([harmonic_mean(*pair) for pair in zip(*both, strict=True)])
    f[(counts[:, 1] == 0) & (counts[:, 3] == 0)] = np.nan
    return BoundaryScores(precision, recall, f, _mean(f))


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


def _boundary(
    mask: Bool[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Pixels that differ from their right, lower or lower right neighbor, where both are known."""
    height, width = mask.shape
    edges = np.zeros_like(mask)
    for down, across in ((0, 1), (1, 0), (1, 1)):
        here, there = np.s_[: height - down, : width - across], np.s_[down:, across:]
        differ = mask[here] ^ mask[there]
        edges[here] |= differ if known is None else differ & known[here] & known[there]
    return edges


def _dilate(mask: Bool[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    """Dilate by a disk, made of horizontal lines grown from the shortest to the longest."""
    height, width = mask.shape
    grown, lines = mask.copy(), mask.copy()
    if not mask.any():
        return grown

    half = 0
    for down in range(radius, -1, -1):
        # Half width of the disk at this row.
        while half < math.isqrt(radius**2 - down**2):
            half += 1
            rest = max(0, width - half)
            lines[:, half:] |= mask[:, :rest]
            lines[:, :rest] |= mask[:, half:]

        # Shift the line of this row's half width up and down.
        rest = max(0, height - down)
        grown[down:] |= lines[:rest]
        grown[:rest] |= lines[down:]
    return grown


def _match(
    true: Bool[np.ndarray, "h w"],
    found: Bool[np.ndarray, "h w"],
    radius: int,
    certain: Bool[np.ndarray, "h w"] | None = None,
) -> Int64[np.ndarray, " 4"]:
    """Count boundary pixels: matched predicted, predicted, matched true and true, where certain."""
    near_true, near_found = _dilate(true, radius), _dilate(found, radius)
    if certain is not None:
        true, found = true & certain, found & certain
    return np.array(
        [np.count_nonzero(each) for each in (found & near_true, found, true & near_found, true)]
    )


def _box(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """Rows and columns of the mask's bounding box, with a margin of one pixel."""
    down, across = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return np.s_[max(0, down[0] - 1) : down[-1] + 2, max(0, across[0] - 1) : across[-1] + 2]


def _outside(
    void: Bool[np.ndarray, "h w"] | None,
    truth: Bool[np.ndarray, "h w"],
    predicted: Bool[np.ndarray, "h w"],
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Clear the void pixels in both masks."""
    _check_sizes(truth, predicted)
    if void is None:
        return truth, predicted
    _check_sizes(truth, void, "void")
    return truth & ~void, predicted & ~void


def _ratio(
    part: Int64[np.ndarray, " k"], whole: Int64[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    """Quotient of counts, NaN where the denominator is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(ratios: Float64[np.ndarray, " k"]) -> float:
    """Mean over the entries that are not NaN."""
    known = ratios[~np.isnan(ratios)]
    return float(known.mean()) if len(known) else float("nan")


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


def _check_sizes(
    truth: np.ndarray | Tensor, other: np.ndarray | Tensor, which: str = "predicted"
) -> None:
    """Raise if two maps differ in size."""
    if truth.shape != other.shape:
        raise ValueError(
            f"the {which} map is {_size(other)} and the true one {_size(truth)}: they must be equal"
        )


def _size(labels: np.ndarray | Tensor) -> str:
    """Size of a map, as widthxheight."""
    return f"{labels.shape[1]}x{labels.shape[0]}"

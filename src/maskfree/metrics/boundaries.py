"""Region similarity and boundary scores of masks and label maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from maskfree.metrics.confusion_matrix import check_sizes, confusion
from maskfree.metrics.segmentation_scores import harmonic_mean, mean_of_known, ratio
from maskfree.ops.ignore import IGNORE


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
    if not union:
        return 1.0
    return np.count_nonzero(truth & predicted) / union


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
    if tolerance >= 1:
        return math.ceil(tolerance)
    return math.ceil(tolerance * math.hypot(*size))


def boundary_counts(
    truth: Integer[np.ndarray, "h w"],
    predicted: Integer[np.ndarray, "h w"],
    num_classes: int,
    ignore: int = IGNORE,
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
    precision, recall = ratio(counts[:, 0], counts[:, 1]), ratio(counts[:, 2], counts[:, 3])

    # A boundary in only one of the maps scores 0, in neither NaN.
    both = np.nan_to_num(precision), np.nan_to_num(recall)
    f = np.array([harmonic_mean(*pair) for pair in zip(*both, strict=True)])
    f[(counts[:, 1] == 0) & (counts[:, 3] == 0)] = np.nan
    return BoundaryScores(precision, recall, f, mean_of_known(f))


def _boundary(
    mask: Bool[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Pixels that differ from their right, lower or lower right neighbor, where both are known."""
    height, width = mask.shape
    edges = np.zeros_like(mask)
    for down, across in ((0, 1), (1, 0), (1, 1)):
        here, there = np.s_[: height - down, : width - across], np.s_[down:, across:]
        differ = mask[here] ^ mask[there]
        if known is not None:
            differ = differ & known[here] & known[there]
        edges[here] |= differ
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

    counted = (found & near_true, found, true & near_found, true)
    return np.array([np.count_nonzero(mask) for mask in counted])


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
    check_sizes(truth, predicted)
    if void is None:
        return truth, predicted
    check_sizes(truth, void, "void")
    return truth & ~void, predicted & ~void

"""Reliability of confidences: how often labels of each confidence are right."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64

NUM_BINS = 15
"""Bins of equal width over [0, 1], as is usual."""
# All floats of 16 bits in [0, 1], in the order of their bits.
_NUMBERS = np.arange(np.float16(1).view(np.uint16) + 1, dtype=np.uint16).view(np.float16)
_NUMBERS = _NUMBERS.astype(np.float32)


def reliability_counts(
    confidence: Float[np.ndarray, ...], correct: Bool[np.ndarray, ...]
) -> Float64[np.ndarray, "15 3"]:
    """Count labels by their confidence; counts of several photos add up.

    Args:
        confidence: Probability of each label, in [0, 1].
        correct: Whether the label is right.

    Returns:
        Labels, sum of their confidences and number of right ones, for each bin.
    """
    correct = np.asarray(correct).ravel()
    if confidence.dtype != np.float16:
        return _counts(np.asarray(confidence, np.float32).ravel(), correct)

    # There are few numbers of 16 bits: count each one, right and wrong, then these.
    codes = confidence.ravel().view(np.uint16) << 1 | correct
    number = np.bincount(codes, minlength=2 * len(_NUMBERS)).reshape(-1, 2)
    return _counts(_NUMBERS, number[:, 1], number.sum(1))


def _counts(
    values: Float[np.ndarray, " n"], correct: np.ndarray, number: np.ndarray | None = None
) -> Float64[np.ndarray, "15 3"]:
    """Counts of confidences, each of which occurs a number of times; None: once."""
    bins = np.minimum((values * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    sums = values if number is None else values * number
    columns = (number, sums, correct)
    counts = [np.bincount(bins, weights, minlength=NUM_BINS) for weights in columns]
    return np.stack(counts, axis=1).astype(np.float64)


def expected_error(counts: Float64[np.ndarray, "15 3"]) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, weighted by labels.

    Args:
        counts: Counts of `reliability_counts`.

    Returns:
        The error, in [0, 1]; NaN if nothing was counted.

    Source: Guo et al. 2017, equation 3 (arXiv:1706.04599).
    """
    labels, confidences, right = counts.T
    if not labels.sum():
        return float("nan")
    return float(np.abs(confidences - right).sum() / labels.sum())

"""Pseudo-labels: confidence thresholds, synonym pooling and the pixel-wise cross-entropy."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float16, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.precision import full_precision
from maskfree.ops.ignore import IGNORE

LEVELS = 256
_NATS = 8.0  # a probability of exp(-8) or less is stored as confidence 0


def confidence(probabilities: Float16[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Quantize probabilities to 8 bits on a logarithmic scale.

    Args:
        probabilities: Probabilities, in [0, 1].

    Returns:
        Confidences: 255 is certainty, and each step below it a factor of exp(-8 / 255).

    Example:
        >>> confidence(np.array([[1.0, 0.5, 0.0]], np.float16)).tolist()
        [[255, 233, 0]]
    """
    nats = np.log(np.maximum(probabilities.astype(np.float32), math.exp(-_NATS)))
    return np.rint((1 + nats / _NATS).clip(0, 1) * (LEVELS - 1)).astype(np.uint8)


def thresholds(
    histogram: Int64[np.ndarray, "k v"], keep: float, balance: float = 0.5
) -> tuple[int, ...]:
    """Confidence threshold of each class for selecting pseudo-labels.

    Balance 1 keeps rare and uncertain classes, but also a class that is predicted often and seldom
    right; balance 0 drops both. In between, the two thresholds are interpolated: a geometric mean
    of the probabilities, since confidences are logarithmic.

    Args:
        histogram: Number of pixels by class and confidence.
        keep: Share of the pixels to keep, in [0, 1].
        balance: 1 keeps that share of each class, 0 keeps it of all pixels by one threshold.

    Returns:
        Least confidence to keep, per class. A class without pixels takes the highest confidence
        as its own threshold before the interpolation.

    Source: CBST for balance 1 (Zou et al. 2018, algorithm 1, arXiv:1810.07911).
    """
    # Thresholds of each class by itself, and one of all classes together.
    own = _row_thresholds(histogram, keep)
    overall = _row_thresholds(histogram.sum(0, keepdims=True), keep)
    return tuple(np.rint(balance * own + (1 - balance) * overall).astype(int).tolist())


def _row_thresholds(histogram: Int64[np.ndarray, "k v"], keep: float) -> Int64[np.ndarray, " k"]:
    """Highest confidence that the kept share of a row reaches; the maximum for an empty row."""
    # Pixels with at least each confidence, from the highest one down.
    reached = histogram[:, ::-1].cumsum(1)
    # At least one pixel must remain; an empty row gets the highest confidence.
    enough = reached >= np.ceil(keep * reached[:, -1:]).clip(1)
    highest = histogram.shape[1] - 1
    return np.where(enough.any(1), highest - enough.argmax(1), highest)


@full_precision
def pixel_cross_entropy(
    logits: Float[Tensor, "b k hp wp"], labels: UInt8[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Cross-entropy per labeled pixel, with the logits upsampled bilinearly to the labels' size.

    Args:
        logits: Class logits on the patch grid.
        labels: Class index of each pixel; `IGNORE` leaves the pixel out.

    Returns:
        Mean over the labeled pixels, in nats; zero if there is none.

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(1, 4, 2, 3), torch.full((1, 8, 12), 3, dtype=torch.uint8)
        >>> pixel_cross_entropy(logits, labels)
        tensor(1.3863)
    """
    enlarged = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    counted = (labels != IGNORE).sum().clamp_min(1)
    return F.cross_entropy(enlarged, labels.long(), ignore_index=IGNORE, reduction="sum") / counted

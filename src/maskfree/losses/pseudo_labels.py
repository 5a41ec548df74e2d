"""Learning from another model's labels: which of them to believe, and the loss on those."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.precision import full_precision

IGNORE = 255  # the label of a pixel that does not count
LEVELS = 256
_NATS = 8.0  # a probability of exp(-8) or less has the confidence 0


def confidence(probabilities: Float16[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Store probabilities in 8 bits: 255 is certainty, and each step below it a factor of exp(-8 / 255).

    >>> confidence(np.array([[1.0, 0.5, 0.0]], np.float16)).tolist()
    [[255, 233, 0]]
    """
    nats = np.log(np.maximum(probabilities.astype(np.float32), math.exp(-_NATS)))
    return np.rint((1 + nats / _NATS).clip(0, 1) * (LEVELS - 1)).astype(np.uint8)


def thresholds(
    histogram: Int64[np.ndarray, "k v"], keep: float, balance: float = 0.5
) -> tuple[int, ...]:
    """Return for each class the least confidence to believe; HISTOGRAM counts pixels by class and confidence.

    BALANCE 1 keeps the share KEEP of each class, as CBST does (Zou et al. 2018, algorithm 1, arXiv:1810.07911): classes
    that are rare or never sure stay, but so does a class that is often named and seldom right. BALANCE 0 keeps KEEP of
    all pixels together by one threshold, which drops both. Between, thresholds lie between those two; with confidences
    that are logarithms, that is a geometric mean. A class without pixels counts as never sure enough.
    """
    own, overall = _least(histogram, keep), _least(histogram.sum(0, keepdims=True), keep)
    return tuple(np.rint(balance * own + (1 - balance) * overall).astype(int).tolist())


def _least(histogram: Int64[np.ndarray, "k v"], keep: float) -> Int64[np.ndarray, " k"]:
    """Return the highest confidence that at least the share KEEP of a row's pixels reach, and 255 for an empty row."""
    reached = histogram[:, ::-1].cumsum(1)
    enough = reached >= np.ceil(keep * reached[:, -1:]).clip(1)
    highest = histogram.shape[1] - 1
    return np.where(enough.any(1), highest - enough.argmax(1), highest)


def best_of_synonyms(
    scores: Float[Tensor, "b p hp wp"], synonyms: Sequence[int]
) -> Float[Tensor, "b k hp wp"]:
    """Give each class the score of its best phrase; SYNONYMS is the number of phrases of each class, in order."""
    if max(synonyms) == 1:
        return scores
    return torch.cat(
        [part.amax(1, keepdim=True) for part in scores.split(list(synonyms), dim=1)], dim=1
    )


@full_precision
def pixel_cross_entropy(
    logits: Float[Tensor, "b k hp wp"], labels: UInt8[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over the pixels that count, the logits enlarged bilinearly to the labels' size.

    Where no pixel counts the loss is zero.
    """
    enlarged = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    counted = (labels != IGNORE).sum().clamp_min(1)
    return F.cross_entropy(enlarged, labels.long(), ignore_index=IGNORE, reduction="sum") / counted

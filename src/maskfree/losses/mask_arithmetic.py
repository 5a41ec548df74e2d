"""Settings of the cross-image mask consistency loss, as in the paper and in the released code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MaskArithmetic:
    """Settings of the cross-image mask consistency loss: making masks, matching them, averaging."""

    side_px: int | None = None
    """Side in pixels of the square that masks are resized to (bilinear, corners aligned); None
    keeps the patch grid."""
    squash: Literal["sigmoid", "range"] = "sigmoid"
    """How predicted logits become masks in [0, 1]: "sigmoid", or "range" for min-max scaling of
    each mask."""
    threshold: float = 0.65
    """Sigmoid from which a pixel belongs to the target mask, in [0, 1]."""
    relative: bool = False
    """Whether the threshold is a share of the largest sigmoid of each mask."""
    matched_by: Literal["cosine", "distance"] = "cosine"
    """Similarity for matching masks: "cosine", or "distance" for the Euclidean distance of unit-
    norm maps."""
    matched_on: Literal["sigmoid", "logits"] = "sigmoid"
    """Maps that are compared for matching: "sigmoid" or "logits"."""
    joint: bool = False
    """Whether one Dice loss covers all masks of a photo, instead of the mean of one per mask."""
    smoothing: float = 0.0
    """Smoothing term in numerator and denominator of the Dice loss, in patches (in pixels if masks
    are resized)."""
    divide_by: Literal["photos", "masks"] = "photos"
    """Divisor of the sum of losses over photos: the number of "photos" or of "masks"."""


PAPER = MaskArithmetic()
"""Settings of the paper, arXiv:2301.09121."""


RELEASED = MaskArithmetic(
    side_px=224,
    squash="range",
    threshold=0.6,
    relative=True,
    matched_by="distance",
    matched_on="logits",
    joint=True,
    smoothing=1.0,
    divide_by="masks",
)
"""Settings of the released code of OVSegmentor."""

"""Settings of the cross-image mask consistency: the paper's and the released code's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskfree.config.rules import Fraction, Side, Weight


@dataclass(frozen=True)
class MaskArithmetic:
    """How logits become masks, which masks belong together, and how their losses are averaged."""

    side_px: Side | None = (
        None  # masks are enlarged bilinearly (corners aligned) to this square; None: patches
    )
    squash: Literal["sigmoid", "range"] = (
        "sigmoid"  # how a prediction comes into [0, 1]; "range": least 0, largest 1
    )
    threshold: Fraction = 0.65  # a target's sigmoid counts as 1 from here on
    relative: bool = False  # the threshold is a share of the largest sigmoid of each mask
    matched_by: Literal["cosine", "distance"] = (
        "cosine"  # "distance": Euclidean, of maps of unit norm
    )
    matched_on: Literal["sigmoid", "logits"] = "sigmoid"  # the maps that are compared for that
    joint: bool = False  # one Dice of all masks of a photo together, not the mean of one for each
    smoothing: Weight = (
        0.0  # added to the numerator and the denominator of Dice, in patches (or pixels)
    )
    divide_by: Literal["photos", "masks"] = "photos"  # what the sum over photos is divided by


PAPER = MaskArithmetic()


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

"""Calibration: how scores become the probability that a label is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from maskfree.config.rules import Range, check


@dataclass(frozen=True)
class Calibration:
    """Settings by which scores become confidences. They have no influence on labels.

    A model stores them beside its inference settings, for whose scores they were fitted.
    """

    temperature: Annotated[float, Range(0)] = 0.0
    """Difference of scores that makes one class e times as probable as another; 0 takes the
    model's own, 1 over its logit scale, which is not calibrated."""
    none: float | None = None
    """Score of "none of the words", which takes part in the softmax; None for no such class."""

    def __post_init__(self) -> None:
        """Check the range of the temperature."""
        check(self)

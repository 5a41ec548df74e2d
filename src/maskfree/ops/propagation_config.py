"""Settings of label propagation in video.

This module does not import torch, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskfree.config.rules import Count, CountOrZero, Positive, check


@dataclass(frozen=True)
class PropagationConfig:
    """Settings of label propagation.

    The defaults are DINO's, Caron et al. 2021 (arXiv:2104.14294).
    """

    top_k: Count = 5
    """Number of most similar positions, over all earlier frames, from which a label is taken."""
    context: CountOrZero = 7
    """Number of previous frames that labels are taken from, in addition to the first frame."""
    radius: CountOrZero = 12
    """Search radius, in cells: largest vertical and horizontal distance of these positions."""
    temperature: Positive = 0.1
    """Temperature of the weights, a softmax over cosines: the lower, the more the most similar
    position counts."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check(self)

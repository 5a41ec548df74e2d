"""Settings of the terms that several methods share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskfree.config.rules import Positive, Weight

if TYPE_CHECKING:
    from maskfree.nn.contrastive_objective import ContrastiveObjective


@dataclass(frozen=True)
class ContrastiveConfig:
    """The contrast and its temperature. ViL-Seg prints `symmetric` False and names no temperature."""

    weight: Weight = 1.0
    symmetric: bool = True  # also text to image
    initial_scale: Positive = 1 / 0.07  # 1 / temperature
    max_scale: Positive = 100.0

    def build(self) -> ContrastiveObjective:
        """Make the term."""
        from maskfree.losses.contrastive import image_to_text, info_nce
        from maskfree.nn.contrastive_objective import ContrastiveObjective

        return ContrastiveObjective(
            weight=self.weight,
            contrast=info_nce if self.symmetric else image_to_text,
            initial_scale=self.initial_scale,
            max_scale=self.max_scale,
        )

"""Settings of the image-text contrastive loss that several methods share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskfree.config.rules import Weight

if TYPE_CHECKING:
    from maskfree.nn.contrastive_objective import ContrastiveObjective


@dataclass(frozen=True)
class ContrastiveConfig:
    """Settings of the image-text contrastive loss and its temperature.

    Differs: ViL-Seg has `symmetric` False, and the paper does not state its temperature.
    """

    weight: Weight = 1.0
    """Weight of the image-text contrastive loss."""
    symmetric: bool = True
    """Average the image-to-text and the text-to-image loss; False: image-to-text only."""

    def build(self) -> ContrastiveObjective:
        """Build the contrastive objective.

        Returns:
            The objective, with its learned scale.
        """
        from maskfree.losses.contrastive import image_to_text, info_nce
        from maskfree.nn.contrastive_objective import ContrastiveObjective

        contrast = info_nce if self.symmetric else image_to_text
        return ContrastiveObjective(weight=self.weight, contrast=contrast)

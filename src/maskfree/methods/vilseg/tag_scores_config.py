"""Configuration of the tag scores that are added to ViL-Seg's cosines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maskfree.config.rules import Weight, Width
from maskfree.nn.encoder_config import ImageEncoderConfig

if TYPE_CHECKING:
    from maskfree.methods.vilseg.tag_scores import TagScores


@dataclass(frozen=True)
class TagScoresConfig:
    """Scores of an image classifier and of a concept head, added to the cosines.

    Not in the paper.
    """

    image: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig("efficientnet_lite")
    )
    """Image encoder of the classifier: an EfficientNet-Lite at its original stride."""
    num_tags: Width = 1000
    """Number of classes of the classifier."""
    num_tag_names: Width = 1
    """Number of names of all classes together."""
    num_tag_kinds: Width = 1
    """Number of superclass names of all classes together."""
    num_concepts: Width = 1
    """Number of concepts that the concept head predicts."""
    num_concept_names: Width = 1
    """Number of names of all concepts together."""
    weight: Weight = 1.0
    """Weight of the loss that trains the concept head."""
    distillation_weight: Weight = 0.0
    """Weight of the distillation loss that keeps the classifier near its initial outputs; 0 freezes
    the classifier."""

    def build(self, dim: int) -> TagScores:
        """Build the classifier and the concept head.

        Args:
            dim: Dimension of the text embeddings.

        Returns:
            The tag scores with randomly initialized names.

        Raises:
            ValueError: The image encoder is no EfficientNet-Lite at its original stride.
        """
        from maskfree.methods.vilseg.tag_scores import TagScores
        from maskfree.nn.efficientnet_lite import EfficientNetLite

        encoder = self.image.build()
        if not isinstance(tower := encoder.tower, EfficientNetLite) or encoder.patch_size != 32:
            raise ValueError("tag_scores.image must be an efficientnet_lite at a stride of 32 px")
        return TagScores(self, encoder=encoder, tower=tower, dim=dim)

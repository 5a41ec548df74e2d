"""Configuration of CLIP-S4's losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from maskfree.config.rules import (
    Count,
    Range,
    Weight,
    WidthOrZero,
)

if TYPE_CHECKING:
    from maskfree.data.cache.prototypes import Prototypes
    from maskfree.methods.clips4.objectives import (
        PixelSegmentObjective,
        SemanticConsistencyObjective,
    )

# Batches; a larger number once meant segments.
_MAX_MEMORY = 64


@dataclass(frozen=True)
class PixelSegmentConfig:
    """Pixel-segment contrastive loss L_t (eq. 1)."""

    weight: Weight = 1.0
    """Weight of L_t."""
    memory: Annotated[int, Range(0, _MAX_MEMORY)] = 2
    """Number of earlier batches whose segments are kept as negatives."""
    thin: Count = 1
    """Contrast only every n-th pixel, along diagonals, to save time."""

    def build(self, embed_dim: int) -> PixelSegmentObjective:
        """Build the objective with its memory bank.

        Args:
            embed_dim: Dimension of the pixel embeddings.

        Returns:
            The objective.

        Raises:
            ValueError: The memory is negative, or no pixel is left.
        """
        from maskfree.methods.clips4.objectives import PixelSegmentObjective

        return PixelSegmentObjective(
            weight=self.weight,
            memory=self.memory,
            thin=self.thin,
            dim=embed_dim,
        )


@dataclass(frozen=True)
class SemanticConsistencyConfig:
    """Semantic consistency loss L_s (eq. 3), with the unknown classes of eq. 4."""

    weight: Weight = 1.0
    """Weight of L_s."""
    num_unknown: WidthOrZero = 64
    """Number of unknown classes (u), initialized with random segments of the teacher."""
    seed: int = 0
    """Random seed of the choice of these segments."""
    known: Literal["segments", "names"] = "segments"
    """Prototypes of known classes: mean of the teacher's "segments" most similar to the class name,
    or the embedded "names" with synonyms, for a teacher whose text and pixel embeddings are
    aligned."""
    soft: bool = False
    """Train on the teacher's class probabilities instead of its most likely class. Not in the
    paper."""
    class_prior: Weight = 0.0
    """Weight of an image-level class prior added to a segment's cosines. Not in the paper. The
    class distribution is kept by distribution alignment (arXiv:1911.09785), so that rare classes
    are not unlearned."""

    def build(self, found: Prototypes, scale: float) -> SemanticConsistencyObjective:
        """Build the objective with its class prototypes.

        Args:
            found: Known classes and the teacher's segments, from which unknown classes start.
            scale: Inverse temperature of the softmax over classes.

        Returns:
            The objective.

        Raises:
            ValueError: There are fewer segments than unknown classes.
        """
        from maskfree.methods.clips4.classes import PrototypeClassifier
        from maskfree.methods.clips4.objectives import UNKNOWN_SHARE, SemanticConsistencyObjective

        # Unknown classes start from random segments of the teacher.
        unknown = found.unknown(self.num_unknown, self.seed)
        if self.known == "names":
            classes = PrototypeClassifier(found.phrases, found.synonyms, unknown)
            # Segments are closer to other segments than to texts, so unknown classes need a margin.
            if self.num_unknown:
                classes.share_out(found.pool, UNKNOWN_SHARE)
        else:
            # Means of segments: one prototype per class.
            classes = PrototypeClassifier(found.known, [1] * len(found.known), unknown)

        return SemanticConsistencyObjective(
            weight=self.weight,
            scale=scale,
            class_prior=self.class_prior,
            soft=self.soft,
            classes=classes,
        )

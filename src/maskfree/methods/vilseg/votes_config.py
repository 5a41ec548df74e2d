"""Configuration of the votes that are added to ViL-Seg's cosines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maskfree.config.rules import Count, Fraction, Positive, PositiveFraction, Weight, Width
from maskfree.nn.encoder_config import ImageEncoderConfig

if TYPE_CHECKING:
    from maskfree.methods.vilseg.votes import Votes


@dataclass(frozen=True)
class BallotConfig:
    """How vocabulary entries vote for words, and the weight of the votes."""

    weight: Weight = 0.08
    """Weight of the log-votes, relative to a cosine."""
    temperature: Positive = 0.1
    """Temperature of an entry's softmax over words, in units of cosine."""
    least: Fraction = 0.3
    """Cosine of an entry and its nearest word up to which the entry does not vote."""
    reach: Positive = 0.4
    """Range of cosines above `least` over which an entry's vote rises to full weight."""
    floor: PositiveFraction = 0.02
    """Constant added to the votes of every word before the logarithm."""
    whole: Weight = 0.25
    """Weight of the image-level votes, relative to a patch's own."""
    neutral: Fraction = 0.0
    """Votes of a word that no entry covers; 0 treats it as if all entries voted against it."""
    covered: Fraction = 0.4
    """Cosine to the nearest entry up to which a word counts as not covered."""


@dataclass(frozen=True)
class VotesConfig:
    """Votes of an image classifier and of a noun head, added to the cosines. Not in the paper."""

    tower: ImageEncoderConfig = field(
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
    """Number of concepts that the noun head predicts."""
    num_concept_names: Width = 1
    """Number of names of all concepts together."""
    head_width: Width = 96
    """Number of channels of the noun head's fine map."""
    head_blocks: Count = 3
    """Number of inverted bottleneck blocks of the noun head."""
    tag_votes: BallotConfig = field(default_factory=lambda: BallotConfig(neutral=0.2))
    """Votes of the classifier's classes."""
    concept_votes: BallotConfig = field(
        default_factory=lambda: BallotConfig(
            temperature=0.06, least=0.2, reach=0.3, floor=0.1, whole=0.5
        )
    )
    """Votes of the noun head's concepts."""
    offset: float = 0.4
    """Constant added to every score, so that thresholds chosen for cosines fit; it changes no arg-
    max."""
    weight: Weight = 1.0
    """Weight of the loss that trains the noun head."""
    keep: Weight = 0.0
    """Weight of the distillation loss that keeps the classifier near its initial outputs; 0 freezes
    the classifier."""
    unnamed: PositiveFraction = 0.03
    """Weight of a concept that no caption of the photo names, since captions are incomplete."""
    other: PositiveFraction = 0.3
    """Weight of the output "other", which is no concept."""
    share: PositiveFraction = 0.1
    """Share of the photo's patches on which a named concept should appear."""

    def build(self, dim: int) -> Votes:
        """Build the votes.

        Args:
            dim: Dimension of the text embeddings.

        Returns:
            The votes with randomly initialized names.

        Raises:
            ValueError: The tower is no EfficientNet-Lite at its original stride.
        """
        from maskfree.methods.vilseg.votes import Votes
        from maskfree.nn.efficientnet_lite import EfficientNetLite

        encoder = self.tower.build()
        if not isinstance(tower := encoder.tower, EfficientNetLite) or encoder.patch_size != 32:
            raise ValueError("votes.tower must be an efficientnet_lite at a stride of 32 px")
        return Votes(self, encoder=encoder, tower=tower, dim=dim)

"""Settings of the votes beside ViL-Seg's cosines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maskfree.config.rules import Count, Fraction, Positive, PositiveFraction, Weight, Width
from maskfree.nn.encoder_config import ImageEncoderConfig

if TYPE_CHECKING:
    from maskfree.methods.vilseg.votes import Votes


@dataclass(frozen=True)
class BallotConfig:
    """How the entries of a vocabulary vote for words, and what their votes count."""

    weight: Weight = 0.08
    """Of the logarithm of the votes, beside a cosine."""
    temperature: Positive = 0.1
    """Of the choice of an entry among the words, in cosines."""
    least: Fraction = 0.3
    """Cosine of an entry and its nearest word up to which it does not vote."""
    reach: Positive = 0.4
    """By how much the cosine must exceed that until the entry's vote counts in full."""
    floor: PositiveFraction = 0.02
    """What every word has beside its votes."""
    whole: Weight = 0.25
    """Weight of the whole photo's votes, beside a patch's own."""
    neutral: Fraction = 0.0
    """Votes that a word has which no entry means; 0: it has none, as if all entries spoke against it."""
    covered: Fraction = 0.4
    """Cosine to the nearest entry up to which no entry means a word."""


@dataclass(frozen=True)
class VotesConfig:
    """Votes of a classifier and of a head for the nouns of captions, beside the cosines. Not in the paper."""

    tower: ImageEncoderConfig = field(
        default_factory=lambda: ImageEncoderConfig("efficientnet_lite")
    )
    """The classifier's; an EfficientNet-Lite at its own stride."""
    num_tags: Width = 1000
    """Classes of the classifier."""
    num_tag_names: Width = 1
    """Names of all classes together, and of the kinds they are of, and of all concepts."""
    num_tag_kinds: Width = 1
    num_concepts: Width = 1
    num_concept_names: Width = 1
    head_width: Width = 96
    """Channels of the head's fine map."""
    head_blocks: Count = 3
    """Inverted bottlenecks of the head."""
    tag_votes: BallotConfig = field(default_factory=lambda: BallotConfig(neutral=0.2))
    concept_votes: BallotConfig = field(
        default_factory=lambda: BallotConfig(
            temperature=0.06, least=0.2, reach=0.3, floor=0.1, whole=0.5
        )
    )
    offset: float = 0.4
    """Added to every score, so that thresholds which suit cosines suit the sum; it changes no arg-max."""
    weight: Weight = 1.0
    """Of the loss that trains the head."""
    keep: Weight = 0.0
    """How much the classifier, which then learns with the head, is held to what it said at first; 0: it is frozen."""
    unnamed: PositiveFraction = 0.03
    """How much a concept counts that no caption names: captions leave things out."""
    other: PositiveFraction = 0.3
    """How much what is no concept counts."""
    share: PositiveFraction = 0.1
    """Part of the photo on which a named concept should show."""

    def build(self, dim: int) -> Votes:
        """Make the votes for texts of DIM dimensions.

        Raises:
            ValueError: The tower is no EfficientNet-Lite at its own stride.
        """
        from maskfree.methods.vilseg.votes import Votes
        from maskfree.nn.efficientnet_lite import EfficientNetLite

        encoder = self.tower.build()
        if not isinstance(tower := encoder.tower, EfficientNetLite) or encoder.patch_size != 32:
            raise ValueError("votes.tower must be an efficientnet_lite at a stride of 32 px")
        return Votes(self, encoder=encoder, tower=tower, dim=dim)

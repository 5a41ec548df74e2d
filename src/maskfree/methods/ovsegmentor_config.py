"""Settings of OVSegmentor's L_entity and L_mask; each builds its term."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from maskfree.losses.mask_consistency import PAPER, MaskArithmetic
from maskfree.methods.ovsegmentor_terms import (
    Comparison,
    CompletionTerm,
    EntityTerm,
    LabelsTerm,
    MaskTerm,
    WordsTerm,
)
from maskfree.nn.entity_decoder import EntityDecoder
from maskfree.nn.grouping_encoder import GroupingEncoder
from maskfree.nn.projection import ProjectionConfig


@dataclass(frozen=True)
class EntityConfig:
    """L_entity, eq. 8 and 9, and what Table 4 compares it with."""

    weight: float = 1.0
    objective: Literal["completion", "labels", "words", "words_without_groups"] = "completion"
    """Complete the masked caption; contrast the photo with each entity's prompt, as GroupViT; or guess each masked word
    among all entities (MLM), with the groups or from the text alone."""
    masking: Literal["entities", "one", "nouns"] = "entities"
    """What is masked: all entities, one of them, or all nouns."""
    templates: str = "imagenet"
    """Prompts of the sentences that name the entities: a name in `maskfree.text.prompts.TEMPLATES`."""
    num_heads: int = 8
    bridge: ProjectionConfig = field(default_factory=ProjectionConfig)
    num_labels: int = 3
    """Prompted entities of a photo, for the objective "labels"."""
    all_questions: bool = False
    """Contrast also captions in which nothing was masked, as the released code does."""
    see_padding: bool = False
    """Let the decoder attend to the padding of shorter captions, as the released code does."""

    def build(self, channels: int, text_channels: int, embed_dim: int, num_entities: int) -> EntityTerm:
        """Make the term.

        Raises:
            ValueError: words that are not entities cannot be guessed among the entities.
        """
        if self.objective == "labels":
            return LabelsTerm(weight=self.weight)
        if self.objective == "words_without_groups":
            return WordsTerm(weight=self.weight, decoder=None, classifier=nn.Linear(text_channels, num_entities))
        decoder = EntityDecoder(dim=channels, text_channels=text_channels, num_heads=self.num_heads)
        if self.objective == "words":
            return WordsTerm(weight=self.weight, decoder=decoder, classifier=nn.Linear(channels, num_entities))
        bridge = self.bridge.build_for_vectors(channels, embed_dim)
        return CompletionTerm(
            weight=self.weight,
            decoder=decoder,
            bridge=bridge,
            all_questions=self.all_questions,
            see_padding=self.see_padding,
        )


@dataclass(frozen=True)
class MaskConfig:
    """L_mask, eq. 10 to 12, with the momentum model that makes its targets; Tables 5 and 6 vary it."""

    weight: float = 0.1
    start: float = 0.75
    """Share of the training without it: 30 of 40 epochs."""
    ratio: float = 0.5
    """Share of the groups that take part: those closest to the shared entity."""
    momentum: float = 0.99
    objective: Literal["masks", "groups"] = "masks"
    symmetric: bool = True
    """Also the partner's masks. The released code grounds the partner's masks only."""
    keys: Literal["online", "target"] = "online"
    """Whose patches the predicted masks are read from; the released code takes the momentum model's."""
    others: Literal["left out", "without gradient"] = "left out"
    """What becomes of the other groups; the released code compares them as well, and only holds back their gradient."""
    arithmetic: MaskArithmetic = PAPER

    def build(self, image: GroupingEncoder) -> MaskTerm:
        """Make the term; the target encoder starts as a copy of IMAGE.

        Raises:
            ValueError: the ratio lets no group, or more than all, take part.
        """
        count = round(self.ratio * image.num_groups)
        if not 1 <= count <= image.num_groups:
            raise ValueError(f"masks.ratio {self.ratio} of {image.num_groups} groups is {count}: it must be 1 or more")
        return MaskTerm(
            weight=self.weight,
            start=self.start,
            image=image,
            momentum=self.momentum,
            comparison=Comparison(
                count=count,
                contrast_groups=self.objective == "groups",
                symmetric=self.symmetric,
                online_keys=self.keys == "online",
                leave_out=self.others == "left out",
                arithmetic=self.arithmetic,
            ),
        )

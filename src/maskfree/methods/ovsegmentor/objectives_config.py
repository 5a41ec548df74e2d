"""Configuration of OVSegmentor's losses on entities and masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import (
    Fraction,
    PositiveFraction,
    Weight,
    Width,
)
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.methods.ovsegmentor.entity_objectives import EntityObjective
    from maskfree.methods.ovsegmentor.mask_objective import MaskConsistencyObjective
    from maskfree.nn.grouping_encoder import GroupingEncoder


@dataclass(frozen=True)
class EntityConfig:
    """Masked entity completion loss L_entity (eq. 8 and 9), with the alternatives of Table 4."""

    weight: Weight = 1.0
    """Weight of L_entity."""
    objective: Literal["completion", "labels", "words", "words_without_groups"] = "completion"
    """Form of the loss: "completion" of the masked caption; contrast with prompted entity "labels",
    as in GroupViT; or masked language modeling of "words" among all entities, with or without
    the image groups."""
    masking: Literal["entities", "one", "nouns"] = "entities"
    """What is masked in a caption: all "entities", "one" of them, or all "nouns"."""
    templates: str = "imagenet"
    """Prompt templates of the sentences that name the entities: a key of
    `maskfree.text.templates.TEMPLATES`."""
    num_heads: Width = 8
    """Number of attention heads of the entity decoder."""
    bridge: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Projection from the decoder's output to the joint embedding space."""

    def build(
        self,
        channels: int,
        text_channels: int,
        embed_dim: int,
        num_entities: int,
        *,
        released: bool,
    ) -> EntityObjective:
        """Build the objective.

        Args:
            channels: Number of channels of the image groups.
            text_channels: Number of channels of the text features.
            embed_dim: Dimension of the joint embedding space.
            num_entities: Number of entities that masked words are classified into.
            released: Complete captions as the released code does.

        Returns:
            The objective.
        """
        from torch import nn

        from maskfree.methods.ovsegmentor.entity_objectives import (
            CompletionObjective,
            MaskedWordsObjective,
            MultiLabelObjective,
        )
        from maskfree.nn.entity_decoder import EntityDecoder

        if self.objective == "labels":
            return MultiLabelObjective(weight=self.weight)
        if self.objective == "words_without_groups":
            return MaskedWordsObjective(
                weight=self.weight, decoder=None, classifier=nn.Linear(text_channels, num_entities)
            )

        # The remaining objectives read the image groups through a decoder, which has the narrower
        # of both widths in the released code.
        dim = channels
        if released:
            dim = min(channels, text_channels)
        decoder = EntityDecoder(
            dim=dim,
            text_channels=text_channels,
            num_heads=self.num_heads,
            group_channels=channels,
        )
        if self.objective == "words":
            return MaskedWordsObjective(
                weight=self.weight, decoder=decoder, classifier=nn.Linear(dim, num_entities)
            )

        bridge = self.bridge.build_for_vectors(dim, embed_dim)

        return CompletionObjective(
            weight=self.weight, decoder=decoder, bridge=bridge, released=released
        )


@dataclass(frozen=True)
class MaskConfig:
    """Cross-image mask consistency loss L_mask (eq. 10 to 12) with its momentum encoder.

    The alternatives are those of Tables 5 and 6.
    """

    weight: Weight = 0.1
    """Weight of L_mask."""
    start: Fraction = 0.75
    """Share of the training without L_mask; the default is 30 of 40 epochs."""
    ratio: PositiveFraction = 0.5
    """Share of the groups that are compared: those most similar to the shared entity. With
    `matching` "released" the share that gets no gradient: the least similar, rounded down."""
    momentum: Fraction = 0.99
    """Momentum of the moving average that makes the targets."""
    objective: Literal["masks", "groups"] = "masks"
    """What is compared: "masks" of the groups, or the "groups" themselves."""
    matching: Literal["paper", "features", "one_way", "released"] = "paper"
    """How masks are compared: as in the "paper", by the products that bind patches to groups;
    "features": the same by the encoder's final image features and groups; "one_way": by the
    binding's scaled logits, on the partner's patches by the momentum encoder only, which is faster;
    or as in the "released" code."""

    def build(self, image: GroupingEncoder) -> MaskConsistencyObjective:
        """Build the objective; the momentum encoder starts as a copy of the image encoder.

        Args:
            image: Image encoder.

        Returns:
            The objective.

        Raises:
            ValueError: The ratio selects no group, or more groups than there are; or the encoder
                has no final image features to compare.
        """
        from maskfree.methods.ovsegmentor.mask_matching import MATCHINGS
        from maskfree.methods.ovsegmentor.mask_objective import MaskConsistencyObjective

        # Compared groups are chosen by rank, so the ratio is turned into a number.
        count = round(self.ratio * image.num_groups)
        if self.matching == "released":
            count = image.num_groups - int(self.ratio * image.num_groups)
        if not 1 <= count <= image.num_groups:
            raise ValueError(
                f"masks.ratio {self.ratio} of {image.num_groups} groups lets {count} learn: "
                "it must be 1 or more"
            )

        matching = MATCHINGS[self.matching]
        if matching.final and not image.keep_patches:
            raise ValueError(
                f"masks.matching {self.matching!r} compares final image features: "
                "they are there with image.form 'paper' only"
            )

        return MaskConsistencyObjective(
            weight=self.weight,
            start=self.start,
            image=image,
            momentum=self.momentum,
            count=count,
            contrast_groups=self.objective == "groups",
            matching=matching,
        )

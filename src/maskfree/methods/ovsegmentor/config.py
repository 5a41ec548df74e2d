"""Configuration of OVSegmentor and its losses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import (
    Fraction,
    OutsideName,
    PositiveFraction,
    Weight,
    Width,
    check,
)
from maskfree.data.config import ViewConfig
from maskfree.method_config import MethodConfig, StudentParts
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.nn.grouping_config import GroupingEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.text.templates import TEMPLATES

if TYPE_CHECKING:
    from maskfree.methods.ovsegmentor.model import OVSegmentor
    from maskfree.methods.ovsegmentor.objectives import EntityObjective, MaskConsistencyObjective
    from maskfree.methods.ovsegmentor.transform import OVSegmentorTransform
    from maskfree.nn.grouping_encoder import GroupingEncoder
    from maskfree.text.tokenize import Tokenizer


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

        from maskfree.methods.ovsegmentor.objectives import (
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

        # The remaining objectives read the image groups through a decoder.
        decoder = EntityDecoder(dim=channels, text_channels=text_channels, num_heads=self.num_heads)
        if self.objective == "words":
            return MaskedWordsObjective(
                weight=self.weight, decoder=decoder, classifier=nn.Linear(channels, num_entities)
            )

        bridge = self.bridge.build_for_vectors(channels, embed_dim)

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
    """Share of the groups that are compared: those most similar to the shared entity."""
    momentum: Fraction = 0.99
    """Momentum of the moving average that makes the targets."""
    objective: Literal["masks", "groups"] = "masks"
    """What is compared: "masks" of the groups, or the "groups" themselves."""
    matching: Literal["paper", "one_way", "released"] = "paper"
    """How masks are compared: as in the "paper"; "one_way", on the partner's patches by the
    momentum encoder only, which is faster; or as in the "released" code."""

    def build(self, image: GroupingEncoder) -> MaskConsistencyObjective:
        """Build the objective; the momentum encoder starts as a copy of the image encoder.

        Args:
            image: Image encoder.

        Returns:
            The objective.

        Raises:
            ValueError: The ratio selects no group, or more groups than there are.
        """
        from maskfree.methods.ovsegmentor.mask_matching import MATCHINGS
        from maskfree.methods.ovsegmentor.objectives import MaskConsistencyObjective

        # Compared groups are chosen by rank, so the ratio is turned into a number.
        count = round(self.ratio * image.num_groups)
        if not 1 <= count <= image.num_groups:
            raise ValueError(
                f"masks.ratio {self.ratio} of {image.num_groups} groups is {count}: "
                "it must be 1 or more"
            )

        return MaskConsistencyObjective(
            weight=self.weight,
            start=self.start,
            image=image,
            momentum=self.momentum,
            count=count,
            contrast_groups=self.objective == "groups",
            matching=MATCHINGS[self.matching],
        )


@dataclass(frozen=True)
class OVSegmentorConfig(MethodConfig):
    """Configuration of the OVSegmentor method; the defaults follow the paper if it names them."""

    image: GroupingEncoderConfig = field(default_factory=GroupingEncoderConfig)
    """Image encoder with its group tokens."""
    text: TextEncoderConfig = field(
        default_factory=lambda: TextEncoderConfig(family="bert", pooling="last")
    )
    """Text encoder."""
    tokenizer: OutsideName | None = "bert-base-uncased"
    """Folder or Hugging Face name of the tokenizer; None takes the one of the text weights."""
    embed_dim: Width = 256
    """Dimension of the joint image-text embedding space."""
    image_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Projection from groups to the joint space."""
    text_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Projection from text features to the joint space."""
    cross: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    """Image-text contrastive loss."""
    entities: str = "ovsegmentor"
    """Entity set: name of a list shipped with the package, or a file with one `word: entity` per
    line."""
    entity: EntityConfig | None = field(default_factory=EntityConfig)
    """Masked entity completion loss; None switches it off."""
    masks: MaskConfig | None = field(default_factory=MaskConfig)
    """Cross-image mask consistency loss; None switches it off."""
    views: ViewConfig = field(default_factory=lambda: ViewConfig(scale=(0.08, 1.0)))
    """Size and augmentation of the training views."""
    form: Literal["paper", "released"] = "paper"
    """"released": as the authors' code, also contrast captions in which nothing was masked, let the
    entity decoder attend to padding, and update the projections' running statistics with all
    tokens."""

    def build(self) -> OVSegmentor:
        """Build the method; pretrained weights are loaded if the config names them.

        Returns:
            The method.

        Raises:
            ValueError: A view does not divide into patches.
        """
        # Imported here, so that reading a config does not import the networks.
        from maskfree.methods.ovsegmentor.model import OVSegmentor
        from maskfree.nn.dual_encoder import TextProjector
        from maskfree.text.entities import EntitySet

        check(self)
        image, text_encoder = self.image.build(), self.text.build()
        # Views are cut into patches without padding.
        if self.views.side_px % image.patch_size:
            raise ValueError(
                f"a view of {self.views.side_px} px does not divide "
                f"into patches of {image.patch_size} px"
            )

        text = TextProjector(
            text_encoder,
            self.text_projection.build_for_vectors(text_encoder.channels, self.embed_dim),
        )

        # Masked words are classified among the entities of the set.
        entity = None
        if self.entity is not None:
            num_entities = len(EntitySet.read(self.entities).entities)
            entity = self.entity.build(
                image.channels,
                text_encoder.channels,
                self.embed_dim,
                num_entities,
                released=self.form == "released",
            )

        return OVSegmentor(
            image=image,
            image_projection=self.image_projection.build_for_vectors(
                image.channels, self.embed_dim
            ),
            text=text,
            cross=self.cross.build(),
            entity=entity,
            masks=self.masks.build(image) if self.masks else None,
            observe_tokens=self.form == "released",
        )

    def build_transform(self, tokenizer: Tokenizer | None) -> OVSegmentorTransform:
        """Build the training transform, with the texts and partners that the losses need.

        Args:
            tokenizer: Tokenizer for captions.

        Returns:
            The transform.

        Raises:
            ValueError: There is no tokenizer, or its maximum length or vocabulary exceeds what
                the text encoder takes.
        """
        from maskfree.methods.ovsegmentor.transform import LABELS_PER_PHOTO, OVSegmentorTransform
        from maskfree.text.entities import EntitySet

        if tokenizer is None:
            raise ValueError("OVSegmentor learns from captions, and the photos have none")

        self.text.check(tokenizer.vocabulary_size, tokenizer.max_length)

        # Without L_entity the defaults fill fields that are not used.
        entity = self.entity or EntityConfig()
        with_labels = self.entity is not None and self.entity.objective == "labels"

        return OVSegmentorTransform(
            tokenizer=tokenizer,
            entity_set=EntitySet.read(self.entities),
            side_px=self.views.side_px,
            scale=self.views.scale,
            mirror=self.views.mirror,
            jitter=self.views.jitter,
            masking=entity.masking,
            templates=TEMPLATES[entity.templates],
            label_count=LABELS_PER_PHOTO if with_labels else 0,
            with_questions=self.entity is not None,
            with_partner=self.masks is not None,
        )

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """Check that the text encoder accepts a tokenizer's output.

        Args:
            vocabulary_size: Number of token ids of the tokenizer.
            max_length: Longest token sequence that the tokenizer returns.

        Raises:
            ValueError: The text encoder has fewer token or position embeddings.
        """
        self.text.check(vocabulary_size, max_length)

    def tokenizer_source(self) -> str:
        """Name the tokenizer to load when training starts.

        Returns:
            Folder or Hugging Face name of the tokenizer.

        Raises:
            ValueError: The config names no tokenizer.
        """
        source = self.tokenizer or self.text.weights
        if source is None:
            raise ValueError(
                "no tokenizer: set tokenizer, or weights of the text encoder that come with one"
            )
        return source

    def extras(self) -> tuple[str, ...]:
        """List the optional dependencies of this config.

        Returns:
            The extra that finds entities in captions.
        """
        return ("entities",)

    def student_parts(self) -> StudentParts:
        """Return what distillation and self-training may take over into a student.

        Returns:
            The text side: a student has no group tokens.
        """
        return StudentParts(
            text=self.text, text_projection=self.text_projection, embed_dim=self.embed_dim
        )

    def without_pretrained(self) -> OVSegmentorConfig:
        """Make the config independent of pretrained weights.

        Returns:
            The same architecture with every value spelled out and no external weights.
        """
        image, text = self.image.without_pretrained(), self.text.without_pretrained()
        return replace(self, image=image, text=text, tokenizer=None)

    def for_inference(self) -> OVSegmentorConfig:
        """Drop the losses, which only training uses.

        Returns:
            `without_pretrained` without L_entity and L_mask.
        """
        return replace(self.without_pretrained(), entity=None, masks=None)

"""Settings of OVSegmentor's L_entity and L_mask; each builds its term."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import (
    Count,
    Fraction,
    OutsideName,
    PositiveFraction,
    Weight,
    Width,
    check,
)
from maskfree.data.config import ViewConfig
from maskfree.losses.mask_arithmetic import PAPER, MaskArithmetic
from maskfree.method_config import MethodConfig
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
    """L_entity, eq. 8 and 9, and what Table 4 compares it with."""

    weight: Weight = 1.0
    objective: Literal["completion", "labels", "words", "words_without_groups"] = "completion"
    """Complete the masked caption; contrast the photo with each entity's prompt, as GroupViT; or guess each masked word
    among all entities (MLM), with the groups or from the text alone."""
    masking: Literal["entities", "one", "nouns"] = "entities"
    """What is masked: all entities, one of them, or all nouns."""
    templates: str = "imagenet"
    """Prompts of the sentences that name the entities: a name in `maskfree.text.prompts.TEMPLATES`."""
    num_heads: Width = 8
    bridge: ProjectionConfig = field(default_factory=ProjectionConfig)
    num_labels: Count = 3
    """Prompted entities of a photo, for the objective "labels"."""
    all_questions: bool = False
    """Contrast also captions in which nothing was masked, as the released code does."""
    see_padding: bool = False
    """Let the decoder attend to the padding of shorter captions, as the released code does."""

    def build(
        self, channels: int, text_channels: int, embed_dim: int, num_entities: int
    ) -> EntityObjective:
        """Make the term.

        Raises:
            ValueError: words that are not entities cannot be guessed among the entities.
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
        decoder = EntityDecoder(dim=channels, text_channels=text_channels, num_heads=self.num_heads)
        if self.objective == "words":
            return MaskedWordsObjective(
                weight=self.weight, decoder=decoder, classifier=nn.Linear(channels, num_entities)
            )
        bridge = self.bridge.build_for_vectors(channels, embed_dim)
        return CompletionObjective(
            weight=self.weight,
            decoder=decoder,
            bridge=bridge,
            all_questions=self.all_questions,
            see_padding=self.see_padding,
        )


@dataclass(frozen=True)
class MaskConfig:
    """L_mask, eq. 10 to 12, with the momentum model that makes its targets; Tables 5 and 6 vary it."""

    weight: Weight = 0.1
    start: Fraction = 0.75
    """Share of the training without it: 30 of 40 epochs."""
    ratio: PositiveFraction = 0.5
    """Share of the groups that take part: those closest to the shared entity."""
    momentum: Fraction = 0.99
    objective: Literal["masks", "groups"] = "masks"
    symmetric: bool = True
    """Also the partner's masks. The released code grounds the partner's masks only."""
    keys: Literal["online", "target"] = "online"
    """Whose patches the predicted masks are read from; the released code takes the momentum model's."""
    others: Literal["left out", "without gradient"] = "left out"
    """What becomes of the other groups; the released code compares them as well, and only holds back their gradient."""
    arithmetic: MaskArithmetic = PAPER

    def build(self, image: GroupingEncoder) -> MaskConsistencyObjective:
        """Make the term; the target encoder starts as a copy of IMAGE.

        Raises:
            ValueError: the ratio lets no group, or more than all, take part.
        """
        from maskfree.methods.ovsegmentor.objectives import (
            MaskConsistencyObjective,
            MaskMatchingConfig,
        )

        count = round(self.ratio * image.num_groups)
        if not 1 <= count <= image.num_groups:
            raise ValueError(
                f"masks.ratio {self.ratio} of {image.num_groups} groups is {count}: it must be 1 or more"
            )
        return MaskConsistencyObjective(
            weight=self.weight,
            start=self.start,
            image=image,
            momentum=self.momentum,
            comparison=MaskMatchingConfig(
                count=count,
                contrast_groups=self.objective == "groups",
                symmetric=self.symmetric,
                online_keys=self.keys == "online",
                leave_out=self.others == "left out",
                arithmetic=self.arithmetic,
            ),
        )


@dataclass(frozen=True)
class OVSegmentorConfig(MethodConfig):
    """Everything that describes an OVSegmentor; the defaults are the paper's where it says something."""

    image: GroupingEncoderConfig = field(default_factory=GroupingEncoderConfig)
    text: TextEncoderConfig = field(
        default_factory=lambda: TextEncoderConfig(family="bert", pooling="last")
    )
    tokenizer: OutsideName | None = (
        "bert-base-uncased"  # folder or Hugging Face name; None is the text weights'
    )
    embed_dim: Width = 256
    image_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    text_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    cross: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    entities: str = (
        "ovsegmentor"  # the entity set: a shipped list, or a file with a `word: entity` a line
    )
    entity: EntityConfig | None = field(default_factory=EntityConfig)
    masks: MaskConfig | None = field(default_factory=MaskConfig)
    views: ViewConfig = field(default_factory=lambda: ViewConfig(scale=(0.08, 1.0)))
    observe_tokens: bool = (
        False  # the projections' running statistics see all tokens, too: the released code's
    )

    def build(self) -> OVSegmentor:
        """Make the method; pretrained weights are read if the config names them.

        Raises:
            ValueError: a view does not divide into patches.
        """
        from maskfree.methods.ovsegmentor.model import OVSegmentor
        from maskfree.nn.dual_encoder import TextProjector
        from maskfree.text.entities import EntitySet

        check(self)
        image, text_encoder = self.image.build(), self.text.build()
        if self.views.side_px % image.patch_size:
            raise ValueError(
                f"a view of {self.views.side_px} px does not divide into patches of {image.patch_size} px"
            )
        text = TextProjector(
            text_encoder,
            self.text_projection.build_for_vectors(text_encoder.channels, self.embed_dim),
        )
        entity = None
        if self.entity is not None:
            num_entities = len(EntitySet.read(self.entities).entities)
            entity = self.entity.build(
                image.channels, text_encoder.channels, self.embed_dim, num_entities
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
            observe_tokens=self.observe_tokens,
        )

    def build_transform(self, tokenizer: Tokenizer | None) -> OVSegmentorTransform:
        """Make the views and texts that the terms which are on need.

        Raises:
            ValueError: there is no TOKENIZER, or it gives longer texts or more different tokens than the text encoder
                takes.
        """
        from maskfree.methods.ovsegmentor.transform import OVSegmentorTransform
        from maskfree.text.entities import EntitySet

        if tokenizer is None:
            raise ValueError("OVSegmentor learns from captions, and the photos have none")
        self.text.check(tokenizer.vocabulary_size, tokenizer.max_length)
        entity = self.entity or EntityConfig()
        return OVSegmentorTransform(
            tokenizer=tokenizer,
            entity_set=EntitySet.read(self.entities),
            side_px=self.views.side_px,
            scale=self.views.scale,
            mirror=self.views.mirror,
            jitter=self.views.jitter,
            masking=entity.masking,
            templates=TEMPLATES[entity.templates],
            label_count=entity.num_labels
            if self.entity and self.entity.objective == "labels"
            else 0,
            with_questions=self.entity is not None,
            with_partner=self.masks is not None,
        )

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """See that the text encoder takes a tokenizer's output."""
        self.text.check(vocabulary_size, max_length)

    def tokenizer_source(self) -> str:
        """Folder or Hugging Face name that the tokenizer is read from when training starts."""
        source = self.tokenizer or self.text.weights
        if source is None:
            raise ValueError(
                "no tokenizer: set tokenizer, or weights of the text encoder that come with one"
            )
        return source

    def extras(self) -> tuple[str, ...]:
        """Entities are found in captions."""
        return ("entities",)

    def without_pretrained(self) -> OVSegmentorConfig:
        """The same architecture with every value spelled out and no outside weights."""
        image, text = self.image.without_pretrained(), self.text.without_pretrained()
        return replace(self, image=image, text=text, tokenizer=None)

    def for_inference(self) -> OVSegmentorConfig:
        """`without_pretrained`, without the terms that only training has."""
        return replace(self.without_pretrained(), entity=None, masks=None)

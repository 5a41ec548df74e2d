"""Configuration of OVSegmentor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import (
    OutsideName,
    Width,
    check,
)
from maskfree.data.config import ViewConfig
from maskfree.method_config import MethodConfig, StudentParts
from maskfree.methods.ovsegmentor.objectives_config import EntityConfig, MaskConfig
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.nn.grouping_config import GroupingEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.text.templates import TEMPLATES

if TYPE_CHECKING:
    from maskfree.methods.ovsegmentor.model import OVSegmentor
    from maskfree.methods.ovsegmentor.transform import OVSegmentorTransform
    from maskfree.text.tokenize import Tokenizer


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
            partner_start=self.masks.start if self.masks else 0.0,
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

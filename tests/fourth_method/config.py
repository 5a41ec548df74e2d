"""Configuration of CLIPpy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from maskfree.config.rules import Width, check
from maskfree.data.config import ViewConfig
from maskfree.method_config import MethodConfig, StudentParts
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.methods.clippy.model import CLIPpy
    from maskfree.methods.clippy.transform import CLIPpyTransform

    from maskfree.text.tokenize import Tokenizer


@dataclass(frozen=True)
class CLIPpyConfig(MethodConfig):
    """Configuration of CLIPpy."""

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    """Image encoder."""
    image_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Projection from image features to the joint space."""
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    """Text encoder."""
    text_projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Projection from text features to the joint space."""
    embed_dim: Width = 512
    """Dimension of the joint image-text embedding space."""
    cross: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    """Image-text contrastive loss."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """Size and augmentation of the training view."""

    def build(self) -> CLIPpy:
        """Build the method."""
        from maskfree.methods.clippy.model import CLIPpy

        from maskfree.nn.dual_encoder import ImageProjector, TextProjector

        check(self)
        image, text = self.image.build(), self.text.build()
        pixels = self.image_projection.build_for_pixels(image.channels, self.embed_dim)
        vectors = self.text_projection.build_for_vectors(text.channels, self.embed_dim)
        return CLIPpy(
            image=ImageProjector(image, pixels),
            text=TextProjector(text, vectors),
            cross=self.cross.build(),
        )

    def build_transform(self, tokenizer: Tokenizer | None) -> CLIPpyTransform:
        """Build the training transform."""
        from maskfree.methods.clippy.transform import CLIPpyTransform

        if tokenizer is not None:
            self.text.check(tokenizer.vocabulary_size, tokenizer.max_length)
        return CLIPpyTransform(tokenizer, self.views)

    def check_tokenizer(self, vocabulary_size: int, max_length: int) -> None:
        """Check that the text encoder accepts a tokenizer's output."""
        self.text.check(vocabulary_size, max_length)

    def tokenizer_source(self) -> str:
        """Name the tokenizer to load when training starts."""
        if self.text.weights is None:
            raise ValueError("no tokenizer: set weights of the text encoder that come with one")
        return self.text.weights

    def student_parts(self) -> StudentParts:
        """Return both encoders and both projections."""
        return StudentParts(
            text=self.text,
            text_projection=self.text_projection,
            embed_dim=self.embed_dim,
            image=self.image,
            image_projection=self.image_projection,
        )

    def without_pretrained(self) -> CLIPpyConfig:
        """Make the config independent of pretrained weights."""
        image, text = self.image.without_pretrained(), self.text.without_pretrained()
        return replace(self, image=image, text=text)

    def for_inference(self) -> CLIPpyConfig:
        """Drop everything that only training uses, which is nothing here."""
        return self.without_pretrained()

"""Settings of image and text encoders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import OutsideName, Side

if TYPE_CHECKING:
    from maskfree.nn.image_encoder import ImageEncoder
    from maskfree.nn.text_encoders import TextEncoder


Value = bool | int | float | str | list[int] | list[float] | list[str]
"""A value of a model configuration that can be written to JSON."""
ImageFamily = Literal[
    "vit",
    "dino",
    "dinov2",
    "dinov3",
    "clip",
    "resnet",
    "mobilenet_v2",
    "efficientnet_lite",
    "timm",
]
"""Network family of an image encoder; "dino" is a "vit" with the color statistics of DINO."""


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Settings of an image encoder: a family, changes to its defaults, and pretrained weights."""

    family: ImageFamily = "vit"
    """Network family of the image encoder."""
    architecture: dict[str, Value] = field(default_factory=dict)
    """Values that override the family's defaults: fields of the transformers configuration; for
    timm `name` and the arguments in_chans, img_size, out_indices and patch_size; for
    efficientnet_lite `width` and `depth`."""
    weights: OutsideName | None = None
    """Pretrained weights: a local folder or a Hugging Face name, for timm a local file (nothing is
    downloaded). None: random initialization."""
    output_stride: Side | None = None
    """Side in pixels of an image patch that one feature covers, reached by dilated convolutions;
    for convolutional families only. None: the family's own stride."""

    def build(self) -> ImageEncoder:
        """Build the image encoder and load its pretrained weights, if any.

        Returns:
            The encoder, in training mode.
        """
        from maskfree.nn.encoders import build_image_encoder

        return build_image_encoder(self)

    def without_pretrained(self) -> ImageEncoderConfig:
        """Copy the settings with the full architecture and without pretrained weights.

        Returns:
            Settings that build the same network without access to the pretrained weights.
        """
        from maskfree.nn.encoders import spelled_out

        return spelled_out(self)


@dataclass(frozen=True)
class TextEncoderConfig:
    """Settings of a text encoder, including how token features are pooled."""

    family: Literal["clip", "bert", "roberta", "siglip", "metaclip_2", "siglip2", "tipsv2"] = "clip"
    """Network family of the text encoder."""
    architecture: dict[str, Value] = field(default_factory=dict)
    """Values that override fields of the family's transformers configuration."""
    weights: OutsideName | None = None
    """Pretrained weights: a local folder or a Hugging Face name. None: random initialization."""
    frozen: bool = False
    """Keep the encoder's weights fixed in training; the feature of each text is then cached."""
    pooling: Literal["usual", "mean", "first", "last"] = "usual"
    """Token that represents the text: "mean" of all tokens, "first" ([CLS] of BERT) or "last"
    ([SEP] of BERT). "usual": the end token for CLIP and MetaCLIP 2, the mean for BERT, RoBERTa and
    TIPSv2, the last position of the padded text for SigLIP."""

    def build(self) -> TextEncoder:
        """Build the text encoder and load its pretrained weights, if any.

        Returns:
            The encoder, in training mode.
        """
        from maskfree.nn.text_encoders import build_text_encoder

        return build_text_encoder(self)

    def check(self, vocabulary_size: int, max_length: int) -> None:
        """Check that the encoder accepts the output of a tokenizer.

        Args:
            vocabulary_size: Number of token ids of the tokenizer.
            max_length: Number of tokens after which the tokenizer truncates a text.

        Raises:
            ValueError: The encoder's vocabulary or its maximum text length is smaller.
        """
        from maskfree.nn.text_encoders import check_tokens

        check_tokens(self, vocabulary_size, max_length)

    def without_pretrained(self) -> TextEncoderConfig:
        """Copy the settings with the full architecture and without pretrained weights.

        Returns:
            Settings that build the same network without access to the pretrained weights.
        """
        from maskfree.nn.text_encoders import spelled_out

        return spelled_out(self)

"""Settings of image and text encoders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import OutsideName, Side

if TYPE_CHECKING:
    from maskfree.nn.encoders import ImageEncoder
    from maskfree.nn.text_encoders import TextEncoder


Value = bool | int | float | str | list[int] | list[float] | list[str]


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Which image encoder: a family, changes to its defaults, and where weights come from.

    `architecture` overrides fields of the family's transformers configuration; for timm it holds `name` and
    arguments that shape the network: in_chans, img_size, out_indices, patch_size. Nothing is downloaded for timm.
    For efficientnet_lite it holds `width`, `depth`, `stem` and `head`.
    """

    family: Literal[
        "vit", "dinov2", "clip", "resnet", "mobilenet_v2", "efficientnet_lite", "timm"
    ] = "vit"
    architecture: dict[str, Value] = field(default_factory=dict)
    weights: OutsideName | None = (
        None  # folder or Hugging Face name, for timm a file; None is random
    )
    output_stride: Side | None = (
        None  # pixels a patch, by dilation; convolutional families only, None is their own
    )
    statistics: Literal["imagenet", "half", "lite", "clip"] | None = (
        None  # color normalization; None is the family's usual
    )

    def build(self) -> ImageEncoder:
        """Make the encoder; weights are read if named."""
        from maskfree.nn.encoders import build_image_encoder

        return build_image_encoder(self)

    def without_pretrained(self) -> ImageEncoderConfig:
        """The same network with every value spelled out and no outside weights."""
        from maskfree.nn.encoders import spelled_out

        return spelled_out(self)


@dataclass(frozen=True)
class TextEncoderConfig:
    """Which text encoder, and which of its tokens stands for the text.

    `pooling` "usual" is the last token of CLIP's transformer, [EOT], the mean over a BERT's, and the last place of a
    SigLIP's, whose texts are filled up with `pad_token_id`; a BERT's "first" is [CLS], its "last" is [SEP].
    """

    family: Literal["clip", "bert", "siglip"] = "clip"
    architecture: dict[str, Value] = field(
        default_factory=dict
    )  # overrides fields of transformers' configuration
    weights: OutsideName | None = None  # folder or Hugging Face name; None is random
    frozen: bool = False  # not trained; its features are kept per text
    pooling: Literal["usual", "mean", "first", "last"] = "usual"

    def build(self) -> TextEncoder:
        """Make the encoder; weights are read if named."""
        from maskfree.nn.text_encoders import build_text_encoder

        return build_text_encoder(self)

    def check(self, vocabulary_size: int, max_length: int) -> None:
        """See that the encoder takes a tokenizer's output.

        Raises:
            ValueError: it knows fewer tokens, or takes shorter texts only.
        """
        from maskfree.nn.text_encoders import check_tokens

        check_tokens(self, vocabulary_size, max_length)

    def without_pretrained(self) -> TextEncoderConfig:
        """The same network with every value spelled out and no outside weights."""
        from maskfree.nn.text_encoders import spelled_out

        return spelled_out(self)

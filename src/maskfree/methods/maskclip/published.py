"""Configs, tokenizers, prompts and inference settings of published weights of CLIP's kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from maskfree.inference.config import Inference
from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.methods.maskclip.presets import named_preset
from maskfree.nn.clip_weights import model_type
from maskfree.nn.configurations import read_configuration
from maskfree.nn.dense_clip_config import MASKCLIP, TRAINED, DenseClipConfig, LastBlock
from maskfree.nn.encoder_config import TextEncoderConfig, Value
from maskfree.nn.image_text_families import IMAGE_TEXT_FAMILIES
from maskfree.text.templates import TEMPLATES
from maskfree.text.tokenize import Tokenizer

# Without one of these files transformers silently creates an empty tokenizer.
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")

# Prompts of the families that were trained for patches or published with one set of prompts.
_TEMPLATES = {"siglip": "siglip", "siglip2": "siglip", "tipsv2": "tipsv2"}


def maskclip_config(
    source: str, last_block: str | None = None, padding: int | None = None
) -> MaskCLIPConfig:
    """Create the config of published weights.

    Args:
        source: Folder or Hugging Face name of a model of transformers whose type is in
            `IMAGE_TEXT_FAMILIES`, such as a CLIPModel.
        last_block: Name of a method in `METHOD_PRESETS`; by default that of the family, "maskclip"
            for CLIP.
        padding: Padding token id of SigLIP's tokenizer; by default that of the configuration.

    Returns:
        The config.

    Raises:
        FileNotFoundError: The weights do not exist.
        ValueError: The weights are of another model, or the preset is unknown.
    """
    kind = model_type(source)
    if kind not in IMAGE_TEXT_FAMILIES:
        raise ValueError(
            f"{source!r} is no CLIP that transformers saved, but {kind or 'something else'}"
        )

    family = IMAGE_TEXT_FAMILIES[kind]
    dim = family.dim(read_configuration(family.configuration, source, {}))
    image: dict[str, Value] = {}
    if family.image_states_dim:
        # The encoders' own configurations may state another dimension.
        image["projection_dim"] = dim

    text: dict[str, Value] = {}
    if padding is not None:
        text["pad_token_id"] = padding

    name = cast(Any, kind)
    config = MaskCLIPConfig(
        image=DenseClipConfig(name, image, source),
        text=TextEncoderConfig(name, text, source, frozen=True),
        text_projection=family.text_projection,
        embed_dim=dim,
    )
    return named_preset(last_block or family.last_block).apply(config)


def published_clip(
    source: str, last_block: str | None = None, words: str | None = None
) -> tuple[MaskCLIPConfig, Tokenizer]:
    """Create the config of published weights and load their tokenizer.

    Args:
        source: Folder or Hugging Face name of a model of transformers whose type is in
            `IMAGE_TEXT_FAMILIES`, such as a CLIPModel.
        last_block: Name of a method in `METHOD_PRESETS`; by default that of the family, "maskclip"
            for CLIP.
        words: Folder or Hugging Face name of the tokenizer; None: it is that of the source.

    Returns:
        The config and the tokenizer.

    Raises:
        FileNotFoundError: The weights or their tokenizer do not exist.
        ValueError: The weights are of another model, do not fit the tokenizer, or the preset is
            unknown.

    Example:
        config, tokenizer = published_clip("openai/clip-vit-base-patch16")
    """
    config = maskclip_config(source, last_block)
    words = words or source
    folder = Path(words)
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise FileNotFoundError(
            f"no tokenizer in {words!r}: it needs {' or '.join(_TOKENIZER_FILES)}"
        )

    # The text encoder has this many positions.
    longest = config.text.without_pretrained().architecture["max_position_embeddings"]
    tokenizer = Tokenizer.from_source(words, int(longest))  # pyright: ignore[reportArgumentType]
    family = IMAGE_TEXT_FAMILIES[config.text.family]
    if family.lower_case:
        tokenizer = tokenizer.lower_case()

    # A mismatch is reported here instead of at the first text.
    config.text.check(tokenizer.vocabulary_size, tokenizer.max_length)

    # SigLIP's padding id is the tokenizer's, which a padded text shows.
    if family.fills_texts:
        tokens = tokenizer(["photo", "a photo of a photo"])
        config = maskclip_config(source, last_block, padding=int(tokens.ids[~tokens.mask][0]))

    return config, tokenizer


def default_inference(
    last_block: LastBlock, family: str = "clip"
) -> tuple[tuple[str, ...], Inference]:
    """Choose prompts and inference settings close to those a variant was published with.

    Args:
        last_block: Attention of the last block.
        family: Network family of the image encoder.

    Returns:
        Prompt templates and inference settings.
    """
    if family in _TEMPLATES:
        return TEMPLATES[_TEMPLATES[family]], Inference()
    # MaskCLIP adds its own templates to those of CLIP.
    if last_block in (MASKCLIP, TRAINED):
        return TEMPLATES["maskclip"], Inference()

    # Sliding windows of 224 px, as SCLIP and its successors use.
    return TEMPLATES["imagenet"], Inference(
        side_px=336, max_whole_px=1, window_px=224, stride_px=112
    )

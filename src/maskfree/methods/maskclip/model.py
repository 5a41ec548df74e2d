"""MaskCLIP: training-free segmentation with the patch features of CLIP (Zhou et al., ECCV 2022).

The attention of the last block is a setting (`nn.dense_clip.PRESETS`) that also gives SCLIP,
ClearCLIP, NACLIP and others.

Source: arXiv:2112.01071, section 3.2.
Differs: see the method's page in the docs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.inference.config import Inference
from maskfree.method import Method
from maskfree.methods.maskclip.config import UNTRAINED, MaskCLIPConfig, RegionKind
from maskfree.methods.maskclip.presets import named_preset
from maskfree.methods.maskclip.proxied import read_by_proxy
from maskfree.nn.clip_weights import model_type
from maskfree.nn.configurations import read_configuration
from maskfree.nn.dense_clip_config import MASKCLIP, TRAINED, DenseClipConfig, LastBlock
from maskfree.nn.dense_patches import DensePatches
from maskfree.nn.dense_tower import DenseTower
from maskfree.nn.dual_encoder import TextProjector
from maskfree.nn.encoder_config import TextEncoderConfig, Value
from maskfree.nn.image_encoder import ImageEncoder
from maskfree.nn.image_text_families import IMAGE_TEXT_FAMILIES
from maskfree.ops.denoise import key_weights, smooth_by_keys, unlikely_classes
from maskfree.ops.patch_graph import propagate_scores
from maskfree.text.templates import TEMPLATES
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Groups, Losses, Tokens

# Without one of these files transformers silently creates an empty tokenizer.
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")

# Prompts of the families that were trained for patches or published with one set of prompts.
_TEMPLATES = {"siglip": "siglip", "siglip2": "siglip", "tipsv2": "tipsv2"}


class MaskCLIP(Method):
    """CLIP as a patch classifier, with optional refinements and a second encoder, the proxy."""

    def __init__(
        self,
        *,
        image: DenseTower,
        text: TextProjector,
        prompt_denoise: float | None = None,
        key_smoothing: float | None = None,
        proxy: ImageEncoder | None = None,
        scope: RegionKind | None = None,
        propagation: float = 0.0,
    ):
        super().__init__()
        self.image = image
        self.text = text
        self.proxy = proxy
        self._scope: RegionKind | None = scope
        self._propagation = propagation
        self.log_scale: Tensor
        # CLIP's initial temperature; `build` replaces it by that of the weights.
        self.register_buffer("log_scale", torch.tensor(math.log(1 / 0.07)))
        self._prompt_denoise, self._key_smoothing = prompt_denoise, key_smoothing
        self.requires_grad_(False)

    def forward(self, batch: Any) -> Losses:
        """Raise an error, since MaskCLIP is not trained.

        Args:
            batch: Unused.

        Returns:
            Never.

        Raises:
            ValueError: Always.
        """
        raise ValueError(UNTRAINED)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts in the space of the image embeddings.

        Args:
            tokens: Tokenized texts with their padding mask.

        Returns:
            One unit-norm embedding per text.
        """
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Make each patch a group of its own.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Groups with unit-norm embeddings, one per patch.
        """
        dense, _ = self._read(images)
        return Groups.of_pixels(self.image.project(dense.features))

    def segment(
        self, images: Float[Tensor, "b 3 h w"], classes: Float[Tensor, "k d"]
    ) -> Float[Tensor, "b k hp wp"]:
        """Score each patch for each class.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.
            classes: Unit-norm text embeddings of the classes.

        Returns:
            Cosine of patch and class, in [-1, 1]; -1 everywhere for a class that prompt denoising
            drops.

        Differs: key smoothing averages cosines over patches with similar keys. The published code
        averages probabilities, which cannot be compared with a background threshold.
        """
        dense, theirs = self._read(images)
        pixels = F.normalize(self.image.project(dense.features), dim=1).flatten(2)
        cosines = torch.einsum("bdn,kd->bkn", pixels, classes)

        # Prompt denoising: classes that are confident on no patch.
        dropped = None
        if self._prompt_denoise is not None:
            dropped = unlikely_classes(cosines, self._prompt_denoise, self.logit_scale)[..., None]

        # Key smoothing: average unconfident patches; dropped classes do not count as confident.
        if self._key_smoothing is not None:
            kept = cosines
            if dropped is not None:
                kept = cosines.masked_fill(dropped, -1)
            sure = (self.logit_scale * kept).softmax(1).amax(1)
            cosines = smooth_by_keys(
                cosines, key_weights(dense.keys.flatten(2)), sure, self._key_smoothing
            )

        if self._propagation and theirs is not None:
            cosines = propagate_scores(cosines, theirs, self._propagation, self.patch_size)

        # After smoothing, so that -1 does not leak into other patches.
        if dropped is not None:
            cosines = cosines.masked_fill(dropped, -1)

        return cosines.unflatten(2, dense.features.shape[2:])

    @property
    def logit_scale(self) -> float:
        """Inverse temperature of the CLIP weights, 100 for OpenAI's.

        Returns:
            The factor that multiplies cosines before a softmax.
        """
        return self.log_scale.exp().item()

    @property
    def patch_size(self) -> int:
        """Side of one patch of the label map.

        Returns:
            Side in pixels; that of the proxy, if there is one.
        """
        if self.proxy is not None:
            return self.proxy.patch_size
        return self.image.patch_size

    def _read(self, images: Tensor) -> tuple[DensePatches, Tensor | None]:
        """Features of the patches, and those of the proxy on the same grid if there is one."""
        if self.proxy is None:
            return self.image.read(images), None

        theirs = self.proxy(images)
        return read_by_proxy(self.image, theirs, images, self._scope), theirs


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

"""MaskCLIP: a CLIP that segments as it is, by the features of its patches; nothing is trained (Zhou et al., ECCV 2022).

Source: arXiv:2112.01071, section 3.2. Which attention the last block has is a setting (`nn.dense_clip.PRESETS`), by
which this is also SCLIP, ClearCLIP, NACLIP and others. Differs: see the method's page in the docs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.inference.config import Inference
from maskfree.method import Method
from maskfree.methods.maskclip.config import UNTRAINED, MaskCLIPConfig
from maskfree.nn.clip_resnet import DenseClipResNet
from maskfree.nn.clip_weights import model_type
from maskfree.nn.dense_clip import DenseClip
from maskfree.nn.dense_clip_config import MASKCLIP, PRESETS, TRAINED, DenseClipConfig, LastBlock
from maskfree.nn.dual_encoder import TextProjector
from maskfree.nn.encoder_config import TextEncoderConfig, Value
from maskfree.nn.pretrained import read_configuration
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.ops.denoise import key_weights, smooth_by_keys, unlikely_classes
from maskfree.text.templates import TEMPLATES
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch, Groups, Losses, Tokens

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
)  # without them transformers makes up an empty tokenizer


class MaskCLIP(Method):
    """An image tower read densely, its text tower, and two refinements of the scores that are off when None."""

    def __init__(
        self,
        *,
        image: DenseClip | DenseClipResNet,
        text: TextProjector,
        prompt_denoise: float | None = None,
        key_smoothing: float | None = None,
    ):
        super().__init__()
        self.image = image
        self.text = text
        self.log_scale: Tensor
        self.register_buffer("log_scale", torch.tensor(math.log(1 / 0.07)))  # CLIP's first value
        self._prompt_denoise, self._key_smoothing = prompt_denoise, key_smoothing
        self.requires_grad_(False)

    def forward(self, batch: Batch) -> Losses:
        """Refuse.

        Raises:
            ValueError: always; there is nothing to train.
        """
        raise ValueError(UNTRAINED)

    def encode_text(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts; unit norm."""
        return self.text(tokens)

    def group(self, images: Float[Tensor, "b 3 h w"]) -> Groups:
        """Make each patch a group of its own."""
        return Groups.of_pixels(self.image(images))

    def segment(
        self, images: Float[Tensor, "b 3 h w"], classes: Float[Tensor, "k d"]
    ) -> Float[Tensor, "b k hp wp"]:
        """Cosine of each patch to each class, in [-1, 1]; -1 everywhere for a class that prompt denoising drops.

        Key smoothing makes it a mean over patches of like keys. Differs: the published code takes the mean of
        probabilities, which are no scores to compare with a background threshold.
        """
        dense = self.image.read(images)
        pixels = F.normalize(self.image.project(dense.features), dim=1).flatten(2)
        cosines = torch.einsum("bdn,kd->bkn", pixels, classes)
        dropped = None
        if self._prompt_denoise is not None:
            dropped = unlikely_classes(cosines, self._prompt_denoise, self.logit_scale)[..., None]
        if self._key_smoothing is not None:
            seen = cosines if dropped is None else cosines.masked_fill(dropped, -1)
            sure = (self.logit_scale * seen).softmax(1).amax(1)
            cosines = smooth_by_keys(
                cosines, key_weights(dense.keys.flatten(2)), sure, self._key_smoothing
            )
        if dropped is not None:
            cosines = cosines.masked_fill(dropped, -1)
        return cosines.unflatten(2, dense.features.shape[2:])

    @property
    def logit_scale(self) -> float:
        """The inverse temperature that the CLIP learned, 100 in OpenAI's."""
        return self.log_scale.exp().item()

    @property
    def patch_size(self) -> int:
        """Pixels a patch spans on each side."""
        return self.image.patch_size


def maskclip_config(
    source: str, last_block: str | None = None, padding: int | None = None
) -> MaskCLIPConfig:
    """Return the config of the CLIPModel or SiglipModel of transformers in the folder or Hugging Face name SOURCE.

    LAST_BLOCK is a name in `PRESETS`; by default "maskclip" of a CLIP and "trained" of a SigLIP. PADDING is the id that
    a SigLIP's texts are filled up with, its tokenizer's; by default what the configuration says.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: they are of another kind, or there is no such preset.
    """
    family = model_type(source)
    if family not in ("clip", "siglip"):
        raise ValueError(
            f"{source!r} is no CLIP that transformers saved, but {family or 'something else'}"
        )
    block = named_block(last_block or ("maskclip" if family == "clip" else "trained"))
    image: dict[str, Value] = {}
    text: dict[str, Value] = {}
    if family == "clip":
        whole: Any = read_configuration("CLIPConfig", source, {})
        image["projection_dim"] = dim = (
            whole.projection_dim
        )  # the towers' own may say something else
    else:
        dim = read_configuration("SiglipConfig", source, {}).text_config.projection_size
        if padding is not None:
            text["pad_token_id"] = padding
    return MaskCLIPConfig(
        image=DenseClipConfig("clip" if family == "clip" else "siglip", image, source, block),
        text=TextEncoderConfig("clip" if family == "clip" else "siglip", text, source, frozen=True),
        text_projection=ProjectionConfig(bias=family == "siglip"),
        embed_dim=dim,
    )


def published_clip(source: str, last_block: str | None = None) -> tuple[MaskCLIPConfig, Tokenizer]:
    """Return `maskclip_config` with the tokenizer of the same folder or Hugging Face name.

    Raises:
        FileNotFoundError: there are no such weights, or no tokenizer with them.
        ValueError: they are of another kind or do not belong together, or there is no such preset.
    """
    config = maskclip_config(source, last_block)
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise FileNotFoundError(
            f"no tokenizer in {source!r}: it needs {' or '.join(_TOKENIZER_FILES)}"
        )
    longest = config.text.without_pretrained().architecture["max_position_embeddings"]
    tokenizer = Tokenizer.from_source(source, int(longest))  # pyright: ignore[reportArgumentType]
    config.text.check(tokenizer.vocabulary_size, tokenizer.max_length)
    if config.text.family == "siglip":
        tokens = tokenizer(["photo", "a photo of a photo"])
        config = maskclip_config(source, last_block, padding=int(tokens.ids[~tokens.mask][0]))
    return config, tokenizer


def usual_view(last_block: LastBlock, family: str = "clip") -> tuple[tuple[str, ...], Inference]:
    """Return the prompts and the inference with which a model of this LAST_BLOCK was published, or nearly."""
    if family == "siglip":
        return TEMPLATES["siglip"], Inference()
    if last_block in (MASKCLIP, TRAINED):
        return TEMPLATES["maskclip"], Inference()
    return TEMPLATES["imagenet"], Inference(
        side_px=336, max_whole_px=1, window_px=224, stride_px=112
    )


def named_block(name: str) -> LastBlock:
    """Return the preset NAME.

    Raises:
        ValueError: there is none.
    """
    if name not in PRESETS:
        raise ValueError(f"the last block {name!r} is unknown: {', '.join(PRESETS)}")
    return PRESETS[name]

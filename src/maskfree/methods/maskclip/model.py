"""MaskCLIP: training-free segmentation with the patch features of CLIP (Zhou et al., ECCV 2022).

The attention of the last block is a setting (`nn.dense_clip.PRESETS`) that also gives SCLIP,
ClearCLIP, NACLIP and others.

Source: arXiv:2112.01071, section 3.2.
Differs: see the method's page in the docs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.method import Method
from maskfree.methods.maskclip.config import UNTRAINED, RegionKind
from maskfree.methods.maskclip.proxied import read_by_proxy, whole_patches
from maskfree.nn.dense_patches import DensePatches
from maskfree.nn.dense_tower import DenseTower
from maskfree.nn.dense_transformer import DenseTransformer
from maskfree.nn.dual_encoder import TextProjector
from maskfree.nn.image_encoder import ImageEncoder
from maskfree.ops.denoise import key_weights, smooth_by_keys, unlikely_classes
from maskfree.ops.patch_graph import propagate_scores
from maskfree.types import Groups, Losses, Tokens


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
        return self.groups_of((self.image.project(dense.features),))

    def score(
        self, images: Float[Tensor, "b 3 h w"], words: tuple[Tensor, ...]
    ) -> Float[Tensor, "b k hp wp"]:
        """Score each patch for each class.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.
            words: Result of `read_words`.

        Returns:
            Cosine of patch and class, in [-1, 1]; -1 everywhere for a class that prompt denoising
            drops.

        Differs: key smoothing averages cosines over patches with similar keys. The published code
        averages probabilities, which cannot be compared with a background threshold.
        """
        dense, theirs = self._read(images)
        pixels = self.image.project(dense.features)
        return self._scores(pixels, dense.keys, theirs, words[0])

    def look(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        """Compute what depends on the photos alone.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Patch embeddings, and the keys of the last block if they smooth the scores.

        Raises:
            ValueError: There is a proxy, or windows are stitched: both depend on the size of the
                image in ways that only torch runs.
        """
        if self.proxy is not None:
            raise ValueError(
                "a MaskCLIP with a proxy has no image side of its own: only torch runs it"
            )
        if isinstance(self.image, DenseTransformer) and self.image.last_block.stitch_px:
            raise ValueError(
                "a MaskCLIP that stitches windows has no image side of its own: only torch runs it"
            )

        dense = self.image.read(images)
        if self._key_smoothing is None:
            return (self.image.project(dense.features),)
        return self.image.project(dense.features), dense.keys

    def compare(
        self, seen: tuple[Tensor, ...], words: tuple[Tensor, ...], size: tuple[int, int]
    ) -> Float[Tensor, "b k hp wp"]:
        """Score each patch for each class by what `look` has found.

        Args:
            seen: Result of `look`.
            words: Result of `read_words`.
            size: Unused.

        Returns:
            Cosines as of `score`.
        """
        pixels, *keys = seen
        return self._scores(pixels, keys[0] if keys else None, None, words[0])

    def groups_of(self, seen: tuple[Tensor, ...]) -> Groups:
        """Make each patch a group of its own by what `look` has found.

        Args:
            seen: Result of `look`, or its first tensor alone.

        Returns:
            Groups as of `group`.
        """
        return Groups.of_pixels(seen[0])

    def embed_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embed whole images as the weights were trained to, whatever the last block is set to.

        Args:
            images: RGB images in [0, 1]; sides are multiples of `patch_size`.

        Returns:
            Unit-norm image embeddings.
        """
        own = whole_patches(images, self.image.patch_size)
        return F.normalize(self.image.embed_whole(own), dim=-1)

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

    def _scores(
        self,
        pixels: Float[Tensor, "b d hp wp"],
        keys: Float[Tensor, "b e hk wk"] | None,
        theirs: Float[Tensor, "b c hp wp"] | None,
        classes: Float[Tensor, "k d"],
    ) -> Float[Tensor, "b k hp wp"]:
        """Cosines with their refinements: by keys, and by the features of the proxy."""
        unit = F.normalize(pixels, dim=1)
        cosines = torch.einsum("bdn,kd->bkn", unit.flatten(2), classes)

        # Prompt denoising: classes that are confident on no patch.
        dropped = None
        if self._prompt_denoise is not None:
            dropped = unlikely_classes(cosines, self._prompt_denoise, self.logit_scale)[..., None]

        # Key smoothing: average unconfident patches; dropped classes do not count as confident.
        if self._key_smoothing is not None and keys is not None:
            kept = cosines
            if dropped is not None:
                kept = cosines.masked_fill(dropped, -1)
            sure = (self.logit_scale * kept).softmax(1).amax(1)
            cosines = smooth_by_keys(
                cosines, key_weights(keys.flatten(2)), sure, self._key_smoothing
            )

        if self._propagation and theirs is not None:
            cosines = propagate_scores(cosines, theirs, self._propagation, self.patch_size)

        # After smoothing, so that -1 does not leak into other patches.
        if dropped is not None:
            cosines = cosines.masked_fill(dropped, -1)

        return cosines.unflatten(2, pixels.shape[2:])

"""Dense features of CLIP's ResNets: value and output projections of the attention pool, at every place by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskfree.nn.dense_patches import DensePatches
from maskfree.nn.encoder_config import Value
from maskfree.nn.encoders import STATISTICS
from maskfree.nn.pretrained import freeze_batch_norms

_PX_A_PATCH = 32


class DenseClipResNet(nn.Module):
    """A CLIP's ResNet read densely: RGB in [0, 1] in, one embedding per patch out, at any size.

    TOWER is open_clip's `ModifiedResNet`, or has its names. Its pool is one attention that looks from the mean at all
    places; a place is embedded as if there were no other. Source: arXiv:2112.01071, section 3.2.
    """

    patch_size = _PX_A_PATCH

    def __init__(self, *, tower: nn.Module, statistics: str):
        super().__init__()
        self.tower: Any = tower
        freeze_batch_norms(tower)
        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = STATISTICS[statistics]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hp wp"]:
        """Return the embedding of each patch, not normalized.

        Raises:
            ValueError: a side is no multiple of `patch_size`.
        """
        return self.project(self.read(images).features)

    def read(self, images: Float[Tensor, "b 3 h w"]) -> DensePatches:
        """Return the features of each patch, and its keys in the pool.

        Raises:
            ValueError: a side is no multiple of `patch_size`.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"an image of {height}x{width} px does not divide into patches of {self.patch_size} px"
            )
        features = self.tower.stem((images - self.mean) / self.deviation)
        for stage in (self.tower.layer1, self.tower.layer2, self.tower.layer3, self.tower.layer4):
            features = stage(features)
        return DensePatches(
            features, self.tower.attnpool.k_proj(features.movedim(1, -1)).movedim(-1, 1)
        )

    def project(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Map features into the space of the texts, each patch for itself."""
        pool = self.tower.attnpool
        return pool.c_proj(pool.v_proj(features.movedim(1, -1))).movedim(-1, 1)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.tower.attnpool.c_proj.out_features


def make_resnet(architecture: Mapping[str, Value]) -> nn.Module:
    """Build open_clip's ModifiedResNet with the arguments in ARCHITECTURE, at random.

    Raises:
        ValueError: open_clip is not installed, or an argument is unknown or missing.
    """
    try:
        # An extra that drags in torchvision.
        from open_clip.modified_resnet import ModifiedResNet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            "a CLIP with a ResNet needs open_clip: pip install 'maskfree[zoo]'"
        ) from error
    try:
        return ModifiedResNet(**architecture)
    except TypeError as error:
        raise ValueError(f"ModifiedResNet cannot be built: {error}") from error

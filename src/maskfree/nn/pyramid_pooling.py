"""Pyramid pooling head of PSPNet."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.deeplab import normed_layer

BINS = (1, 2, 3, 6)
"""Number of rows and columns of each pooled grid."""


class PyramidPooling(nn.Module):
    """Pyramid pooling followed by a linear map; the output is not normalized.

    Source: Zhao et al. 2017, section 3.2 (arXiv:1612.01105).

    Differs: group norms (arXiv:1803.08494) replace batch norms, since the pool with one bin has one
    pixel per image.
    """

    def __init__(self, *, channels: int, width: int, dim: int):
        """Create the layers.

        Args:
            channels: Number of input channels.
            width: Number of hidden channels.
            dim: Number of output channels.
        """
        super().__init__()
        self.pools = nn.ModuleList(normed_layer(channels, width) for _ in BINS)
        self.merge = normed_layer(channels + len(BINS) * width, width, 1)
        self.out = nn.Conv2d(width, dim, 1)

    def forward(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Map features with image-level context.

        Args:
            features: Feature map.

        Returns:
            One vector per patch, not normalized.
        """
        size = features.shape[2:]

        pooled = [
            pool(F.adaptive_avg_pool2d(features, bins))
            for bins, pool in zip(BINS, self.pools, strict=True)
        ]

        # Resize the pooled grids to the feature map.
        spread = [
            F.interpolate(each, size, mode="bilinear", align_corners=False) for each in pooled
        ]

        return self.out(self.merge(torch.cat([features, *spread], dim=1)))

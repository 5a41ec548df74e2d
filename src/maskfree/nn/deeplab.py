"""Atrous spatial pyramid pooling head of DeepLab."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Default number of groups in group normalization (arXiv:1803.08494).
_MAX_GROUPS = 32


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling followed by a linear map; the output is not normalized.

    Source: Chen et al. 2017, section 3.3 (arXiv:1706.05587).

    Differs: the number of channels is reduced once before the pyramid instead of in each branch,
    and group norms (arXiv:1803.08494) replace batch norms, since batches are small and the pooled
    branch has one pixel.
    """

    def __init__(self, *, channels: int, width: int, dim: int, dilations: Sequence[int]):
        """Create the layers.

        Args:
            channels: Number of input channels.
            width: Number of channels of each branch.
            dim: Number of output channels.
            dilations: Dilation of each atrous branch, in patches.
        """
        super().__init__()
        self.reduce = normed_layer(channels, width)
        self.atrous = nn.ModuleList(normed_layer(width, width, dilation) for dilation in dilations)
        self.whole = normed_layer(width, width)
        self.merge = normed_layer(width * (2 + len(dilations)), width)
        self.out = nn.Conv2d(width, dim, 1)

    def forward(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Map features with multi-scale context.

        Args:
            features: Feature map.

        Returns:
            One vector per patch, not normalized.
        """
        reduced = self.reduce(features)
        whole = self.whole(reduced.mean((2, 3), keepdim=True)).expand_as(reduced)

        # Concatenate all branches before the last maps.
        return self.out(
            self.merge(
                torch.cat([reduced, *(branch(reduced) for branch in self.atrous), whole], dim=1)
            )
        )


class ResidualHead(nn.Module):
    """Sum of a given projection and a pyramid whose output is initialized to zero."""

    def __init__(self, known: nn.Module, pyramid: ASPP):
        """Combine the projection and the pyramid.

        Args:
            known: Projection that gives the output at initialization.
            pyramid: Pyramid whose last layer is set to zero in place.
        """
        super().__init__()
        self.known = known
        self.pyramid = pyramid
        nn.init.zeros_(pyramid.out.weight)
        nn.init.zeros_(pyramid.out.bias)  # pyright: ignore[reportArgumentType] - it has one

    def forward(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Map features.

        Args:
            features: Feature map.

        Returns:
            One vector per patch.
        """
        return self.known(features) + self.pyramid(features)


def normed_layer(channels: int, width: int, dilation: int = 0) -> nn.Sequential:
    """Build a convolution with group normalization and ReLU.

    Args:
        channels: Number of input channels.
        width: Number of output channels.
        dilation: Dilation of a 3x3 convolution; 0: a pointwise convolution.

    Returns:
        The layers.
    """
    kernel = 3 if dilation else 1
    convolution = nn.Conv2d(
        channels, width, kernel, padding=dilation, dilation=max(dilation, 1), bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    # A group has two channels or more: one channel of one pixel would be normalized to 0.
    groups = min(math.gcd(_MAX_GROUPS, width), max(1, width // 2))

    return nn.Sequential(convolution, nn.GroupNorm(groups, width), nn.ReLU())

"""DeepLab's head: what a pixel is, from its neighbourhood at several distances and from the photo as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

_MOST_GROUPS = 32


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling and a linear map to DIM channels, which are not normalized.

    Source: Chen et al. 2017, section 3.3 (arXiv:1706.05587). Differs: the encoder's channels are brought to WIDTH once,
    before the pyramid instead of in each of its branches, and group norms (arXiv:1803.08494) take the place of batch
    norms, since batches are small and the pooled branch has one pixel.
    """

    def __init__(self, *, channels: int, width: int, dim: int, dilations: Sequence[int]):
        super().__init__()
        self.reduce = normed_layer(channels, width)
        self.atrous = nn.ModuleList(normed_layer(width, width, dilation) for dilation in dilations)
        self.whole = normed_layer(width, width)
        self.merge = normed_layer(width * (2 + len(dilations)), width)
        self.out = nn.Conv2d(width, dim, 1)

    def forward(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Return one vector per patch."""
        reduced = self.reduce(features)
        whole = self.whole(reduced.mean((2, 3), keepdim=True)).expand_as(reduced)
        return self.out(
            self.merge(
                torch.cat([reduced, *(branch(reduced) for branch in self.atrous), whole], dim=1)
            )
        )


class ResidualHead(nn.Module):
    """A known projection plus a pyramid that starts as zero, so that learning starts from what is known."""

    def __init__(self, known: nn.Module, pyramid: ASPP):
        super().__init__()
        self.known = known
        self.pyramid = pyramid
        nn.init.zeros_(pyramid.out.weight)
        nn.init.zeros_(pyramid.out.bias)  # pyright: ignore[reportArgumentType] - it has one

    def forward(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Return one vector per patch."""
        return self.known(features) + self.pyramid(features)


def normed_layer(channels: int, width: int, dilation: int = 0) -> nn.Sequential:
    """Convolution, 3x3 where there is a DILATION and pointwise elsewhere, group norm and ReLU."""
    kernel = 3 if dilation else 1
    convolution = nn.Conv2d(
        channels, width, kernel, padding=dilation, dilation=max(dilation, 1), bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    groups = min(
        math.gcd(_MOST_GROUPS, width), max(1, width // 2)
    )  # a pooled pixel's channel alone would become 0
    return nn.Sequential(convolution, nn.GroupNorm(groups, width), nn.ReLU())

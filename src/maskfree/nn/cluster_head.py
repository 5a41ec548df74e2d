"""ViL-Seg's online clustering head: pixel embeddings to soft cluster assignments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_MOMENTUM = 0.1  # of the newest batch in the running statistics, as batch normalization has it


class ClusterHead(nn.Module):
    """One convolution to C channels and a softmax over them. Source: ViL-Seg, section 3.3.

    Differs: STANDARDISED heads see pixels of unit norm, each channel with mean 0 and variance SHARPNESS squared over
    the data. Embeddings of a text space lie close together, and a head that sees them as they are learns slowly.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_clusters: int,
        kernel: int = 1,
        standardized: bool = False,
        sharpness: float = 1.0,
    ):
        super().__init__()
        self.convolution = nn.Conv2d(dim, num_clusters, kernel, padding=kernel // 2)
        self.statistics = RunningStatistics(dim) if standardized else None
        self._sharpness = sharpness

    def forward(self, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
        """Return the probability of each cluster at each pixel."""
        if self.statistics is not None:
            pixels = self._sharpness * self.statistics(F.normalize(pixels.float(), dim=1))
        return self.convolution(pixels).float().softmax(1)

    def observe(
        self, pixels: Float[Tensor, "b d hp wp"], gather: Callable[[Tensor], Tensor]
    ) -> None:
        """Let the running statistics follow the pixels of a batch, over all processes."""
        if self.statistics is not None:
            self.statistics.observe(F.normalize(pixels.float(), dim=1), gather)


class RunningStatistics(nn.Module):
    """Mean and variance of each channel over the data, and standardization by them; nothing here has a gradient."""

    def __init__(self, channels: int):
        super().__init__()
        self.mean: Tensor
        self.variance: Tensor
        self.seen: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Shift and stretch each channel."""
        rate = (self.variance + 1e-8).rsqrt()
        return (pixels - self.mean[:, None, None]) * rate[:, None, None]

    @torch.no_grad()
    def observe(
        self, pixels: Float[Tensor, "b d hp wp"], gather: Callable[[Tensor], Tensor]
    ) -> None:
        """Move towards the statistics of a batch; the first batch counts in full."""
        moments = gather(torch.stack([pixels.mean((2, 3)), pixels.square().mean((2, 3))], 1)).mean(
            0
        )  # 2 d
        momentum = torch.where(self.seen > 0, _MOMENTUM, 1.0)
        self.mean.lerp_(moments[0], momentum)
        self.variance.lerp_(moments[1] - moments[0].square(), momentum)
        self.seen.fill_(1)

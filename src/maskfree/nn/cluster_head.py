"""Online clustering head of ViL-Seg."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# Weight of the newest batch in the running statistics, as in batch normalization.
_MOMENTUM = 0.1
# Standard deviation of standardized channels: soft enough assignments at first.
_DEVIATION = 0.5


class ClusterHead(nn.Module):
    """Predict soft cluster assignments from pixel embeddings.

    Source: ViL-Seg, section 3.3.

    Differs: with `standardized`, pixels are normalized to unit norm, and each channel to mean 0 and
    the same variance over the data. Embeddings of a text space are close together, and a
    head that sees them unchanged learns slowly.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_clusters: int,
        standardized: bool = False,
    ):
        """Create the layers.

        Args:
            dim: Number of channels of the embeddings.
            num_clusters: Number of clusters.
            standardized: Standardize the embeddings by running statistics.
        """
        super().__init__()
        self.convolution = nn.Conv2d(dim, num_clusters, 1)
        self.statistics = RunningStatistics(dim) if standardized else None

    def forward(self, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
        """Predict cluster probabilities.

        Args:
            pixels: Pixel embeddings.

        Returns:
            Probability of each cluster at each pixel.
        """
        # Softmax in float32, also under mixed precision.
        return self.convolution(self.standardize(pixels)).float().softmax(1)

    def standardize(self, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Return what the convolution sees of pixels.

        Args:
            pixels: Pixel embeddings.

        Returns:
            Standardized embeddings, or the embeddings themselves without `standardized`.
        """
        if self.statistics is None:
            return pixels
        return _DEVIATION * self.statistics(F.normalize(pixels.float(), dim=1))

    def observe(
        self, pixels: Float[Tensor, "b d hp wp"], gather: Callable[[Tensor], Tensor]
    ) -> None:
        """Update the running statistics with a batch, over all processes.

        Args:
            pixels: Pixel embeddings of this process.
            gather: Function that concatenates a tensor of all processes along the batch axis.
        """
        if self.statistics is not None:
            self.statistics.observe(F.normalize(pixels.float(), dim=1), gather)


class RunningStatistics(nn.Module):
    """Standardize channels by the running mean and variance over the data, without a gradient."""

    def __init__(self, channels: int):
        """Create the statistics.

        Args:
            channels: Number of channels.
        """
        super().__init__()
        self.mean: Tensor
        self.variance: Tensor
        self.seen: Tensor

        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

        # 0 until the first batch; a buffer, so that checkpoints include it.
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Standardize each channel.

        Args:
            pixels: Pixel embeddings.

        Returns:
            Pixels with mean 0 and variance 1 per channel over the data.
        """
        # 1e-8 avoids division by zero for constant channels.
        rate = (self.variance + 1e-8).rsqrt()
        return (pixels - self.mean[:, None, None]) * rate[:, None, None]

    @torch.no_grad()
    def observe(
        self, pixels: Float[Tensor, "b d hp wp"], gather: Callable[[Tensor], Tensor]
    ) -> None:
        """Update the statistics with a batch; the first batch sets them.

        Args:
            pixels: Pixel embeddings of this process.
            gather: Function that concatenates a tensor of all processes along the batch axis.
        """
        # First and second moment of each channel, averaged over all processes.
        moments = gather(torch.stack([pixels.mean((2, 3)), pixels.square().mean((2, 3))], 1)).mean(
            0
        )  # 2 d

        # The first batch replaces the initial values.
        momentum = torch.where(self.seen > 0, _MOMENTUM, 1.0)

        self.mean.lerp_(moments[0], momentum)
        # Variance is the second moment minus the squared mean.
        self.variance.lerp_(moments[1] - moments[0].square(), momentum)
        self.seen.fill_(1)

"""ViL-Seg's online clustering head: pixel embeddings to soft cluster assignments."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class ClusterHead(nn.Module):
    """One convolution to C channels and a softmax over them. Source: ViL-Seg, section 3.3."""

    def __init__(self, *, dim: int, num_clusters: int, kernel: int = 1):
        super().__init__()
        self.convolution = nn.Conv2d(dim, num_clusters, kernel, padding=kernel // 2)

    def forward(self, pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
        """Return the probability of each cluster at each pixel."""
        return self.convolution(pixels).float().softmax(1)

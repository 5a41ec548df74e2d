"""Regions of a photo: the pixels that ViL-Seg compares with words together."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.ops.kmeans import kmeans

# Clusters per photo of K-means: as many as the clustering head has by default.
_KMEANS_CLUSTERS = 20


def likeliest(likely: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b c hp wp"]:
    """Assign each pixel to its most likely cluster.

    Args:
        likely: Probability of each cluster at each pixel.

    Returns:
        One-hot assignment.

    Source: arXiv:2207.08455, section 3.3: the mask M, by argmax.
    """
    return F.one_hot(likely.argmax(1), likely.shape[1]).movedim(-1, 1).to(likely.dtype)


def by_kmeans(pixels: Float[Tensor, "b d hp wp"]) -> Float[Tensor, "b c hp wp"]:
    """Assign each pixel to a K-means cluster of its photo.

    Args:
        pixels: Pixel embeddings.

    Returns:
        One-hot assignment to at most 20 clusters.

    Source: arXiv:2207.08455, Table 2, "Offline (K-means)".
    """
    labels, centroids = kmeans(pixels.flatten(2).mT, _KMEANS_CLUSTERS)
    members = F.one_hot(labels, centroids.shape[1]).mT
    return members.unflatten(2, pixels.shape[-2:]).to(pixels.dtype)

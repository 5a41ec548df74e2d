"""Regions of a photo: the pixels that are compared with words together."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.config.rules import Grouping
from maskfree.nn.cluster_head import ClusterHead
from maskfree.ops.kmeans import kmeans
from maskfree.types import Groups

# Clusters per photo of K-means: as many as the clustering head has by default.
_KMEANS_CLUSTERS = 20


def check_grouping(grouping: Grouping, head: ClusterHead | None) -> None:
    """Check that pixels can be grouped so.

    Args:
        grouping: What groups the pixels.
        head: Online clustering head, if there is one.

    Raises:
        ValueError: Clusters are asked for, and there is no clustering head.
    """
    if grouping in ("clusters", "soft clusters") and head is None:
        raise ValueError(
            f"grouping by {grouping} needs the online clustering head, which it does not have: "
            "choose kmeans or pixels, or train one by the recipe vilseg_pocket_clusters"
        )


def group_pixels(
    pixels: Float[Tensor, "b d hp wp"], grouping: Grouping, head: ClusterHead | None
) -> Groups:
    """Group patches into regions and average their embeddings.

    Args:
        pixels: Patch embeddings of any norm.
        grouping: What groups them; "own" is not one of its values here.
        head: Online clustering head, for clusters.

    Returns:
        Regions with unit-norm embeddings and the assignment of patches to them.

    Source: arXiv:2207.08455, section 3.3.
    """
    if grouping == "pixels":
        return Groups.of_pixels(pixels)

    if grouping == "kmeans":
        members = by_kmeans(pixels)
    else:
        assert head is not None
        members = head(pixels)
        if grouping == "clusters":
            members = likeliest(members)

    # A region's sum has the direction of its mean. An empty region is zero; no patch reads it.
    members = members.to(pixels.dtype)
    regions = F.normalize(members.flatten(2) @ pixels.flatten(2).mT, dim=-1)  # b g d
    overall = F.normalize(pixels.mean((2, 3)), dim=-1)

    return Groups(regions, members, overall, (pixels.shape[2], pixels.shape[3]))


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

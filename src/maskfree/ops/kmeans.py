"""Batched k-means with deterministic k-means++ initialization."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def kmeans(
    points: Float[Tensor, "b n d"],
    num_clusters: int,
    spherical: bool = False,
    iterations: int = 30,
    seed: int = 0,
) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b g d"]]:
    """Cluster the points of each batch row independently.

    Starts from greedy k-means++ with the same random numbers in each row, so a photo's clusters do
    not depend on its batch.

    Args:
        points: Points to cluster.
        num_clusters: Number of clusters; with fewer points there are as many clusters as points.
        spherical: Whether to compare directions only; centroids then have unit norm.
        iterations: Largest number of Lloyd iterations.
        seed: Seed of the initialization.

    Returns:
        Cluster of each point, and the centroids; a cluster that loses its points keeps its
        centroid.

    Source: Arthur and Vassilvitskii 2007.
    """
    points = points.float()
    if spherical:
        points = F.normalize(points, dim=-1)

    centroids = _spread_out(points, min(num_clusters, points.shape[1]), seed)
    labels = _squared_distances(points, centroids).argmin(2)
    for _ in range(iterations):
        members = F.one_hot(labels, centroids.shape[1]).to(points.dtype)
        sums = members.mT @ points
        counts = members.sum(1)[..., None]

        # Empty clusters keep their centroid.
        if spherical:
            moved = F.normalize(sums, dim=-1)
        else:
            moved = sums / counts.clamp_min(1)
        centroids = torch.where(counts > 0, moved, centroids)

        # Stop once no point changes its cluster.
        before, labels = labels, _squared_distances(points, centroids).argmin(2)
        if torch.equal(before, labels):
            break
    return labels, centroids


def _spread_out(
    points: Float[Tensor, "b n d"], num_clusters: int, seed: int
) -> Float[Tensor, "b g d"]:
    """Greedy k-means++: of several candidates drawn by squared distance, keep the best."""
    num_points = points.shape[1]
    tries = 2 + num_clusters.bit_length()
    draws = torch.rand(num_clusters, tries, generator=torch.Generator().manual_seed(seed)).to(
        points.device
    )
    # The first draw is uniform.
    nearest = torch.ones(points.shape[:2], device=points.device)
    chosen = []

    for draw in draws:
        # Draw candidates with probability proportional to the squared distance.
        heights = nearest.double().cumsum(1)
        wanted = draw.double()[None] * heights[:, -1:]
        candidates = torch.searchsorted(heights, wanted, right=True).clamp_max(
            num_points - 1
        )  # b t

        # Keep the candidate that lowers the total distance most.
        distances = _squared_distances(_take(points, candidates), points)  # b t n
        if chosen:
            distances = torch.minimum(distances, nearest[:, None])

        best = distances.sum(2).argmin(1, keepdim=True)
        nearest = distances.take_along_dim(best[..., None], 1).squeeze(1)
        chosen.append(candidates.gather(1, best))

    return _take(points, torch.cat(chosen, 1))


def _take(points: Float[Tensor, "b n d"], indices: Int[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
    """Gather points by index."""
    return points.take_along_dim(indices[..., None], 1)


def _squared_distances(
    first: Float[Tensor, "b n d"], second: Float[Tensor, "b m d"]
) -> Float[Tensor, "b n m"]:
    """Pairwise squared Euclidean distances."""
    lengths = first.square().sum(2)[:, :, None] + second.square().sum(2)[:, None]
    return torch.baddbmm(lengths, first, second.mT, alpha=-2).clamp_min(0)

"""Propagation of scores over the patches of a photo."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Published values: power of the cosines, decay per pixel of distance, and neighbors of a patch.
_POWER = 3
_DECAY_PER_PX = 0.01
_MAX_NEIGHBORS = 400


def propagate_scores(
    scores: Float[Tensor, "b k n"],
    features: Float[Tensor, "b c hp wp"],
    share: float,
    patch_px: int,
) -> Float[Tensor, "b k n"]:
    """Let patches that look alike and lie close to each other share their scores.

    Solves Z = share * S Z + (1 - share) * Y for the scores Z, where Y are the given scores and S
    are the normalized affinities.

    Args:
        scores: Scores of k classes on n patches, in row-major order.
        features: Features of the patches.
        share: Part of a score that comes from other patches, in [0, 1).
        patch_px: Side of a patch in pixels.

    Returns:
        Propagated scores.

    Source: arXiv:2503.19777, propagation over patches.

    Differs: the system is solved exactly instead of by conjugate gradients, and the scores keep
    their scale, which the published code multiplies by 1 / (1 - share).
    """
    affinity = _affinity(features, patch_px)
    system = torch.eye(affinity.shape[1], device=features.device) - share * affinity
    return (1 - share) * torch.linalg.solve(system, scores.mT).mT


def _affinity(features: Tensor, patch_px: int) -> Tensor:
    """Symmetric normalized affinities of patches, by features and distance."""
    patches = F.normalize(features.flatten(2).mT, dim=-1)
    cosines = patches @ patches.mT

    # Each patch chooses its neighbors; whom it chose is its neighbor too.
    top = cosines.topk(min(_MAX_NEIGHBORS, cosines.shape[-1]), dim=-1)
    chosen = torch.zeros_like(cosines).scatter(-1, top.indices, top.values.clamp_min(0) ** _POWER)
    weights = chosen + chosen.mT

    # Distances between the centers of the patches.
    along = [torch.arange(length, device=features.device) for length in features.shape[2:]]
    places = torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1).flatten(0, 1)
    distance_px = patch_px * torch.cdist(places.to(features), places.to(features))
    weights = weights * (-_DECAY_PER_PX * distance_px).exp()

    # No patch is its own neighbor, and one without neighbors has affinities of 0.
    weights = weights - torch.diag_embed(weights.diagonal(dim1=1, dim2=2))
    root = weights.sum(-1).clamp_min(1e-12).sqrt()
    return weights / root[:, :, None] / root[:, None, :]

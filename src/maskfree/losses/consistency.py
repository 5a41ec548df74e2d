"""Consistency losses of CLIP-S4: embeddings, semantics and class prototypes."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.precision import full_precision


@full_precision
def embedding_consistency(
    segments: Float[Tensor, "m d"], teacher: Float[Tensor, "m d"]
) -> Float[Tensor, " m"]:
    """Cosine distance between segment embeddings and those of the teacher.

    Args:
        segments: Mean embedding of each segment; only the direction counts, so a sum does as well.
        teacher: The teacher's embedding of the same segments.

    Returns:
        1 minus the cosine of each segment, in [0, 2]; 1 for a zero vector.

    Source: CLIP-S4, eq. 2.

    Example:
        >>> import torch
        >>> segments, teacher = torch.eye(2), torch.eye(2).flip(0)
        >>> embedding_consistency(segments, teacher)
        tensor([1., 1.])
    """
    return 1 - F.cosine_similarity(segments, teacher, dim=1)


@full_precision
def semantic_consistency(
    cosines: Float[Tensor, "m k"], targets: Float[Tensor, "m k"], scale: float
) -> Float[Tensor, " m"]:
    """Cross-entropy of each segment's class distribution under target probabilities.

    Args:
        cosines: Cosine of each segment to each class prototype.
        targets: Target probability of each class for each segment.
        scale: Inverse temperature that multiplies the cosines.

    Returns:
        Cross-entropy of each segment, in nats.

    Source: CLIP-S4, eq. 3, whose targets are one-hot.

    Differs: the paper prints no scale. Raw cosines (scale 1) are an almost uniform distribution
    over a hundred classes.

    Example:
        >>> import torch
        >>> cosines, targets = torch.zeros(1, 4), torch.eye(4)[:1]
        >>> semantic_consistency(cosines, targets, scale=10.0)
        tensor([1.3863])
    """
    return F.cross_entropy(scale * cosines, targets, reduction="none")


@full_precision
def prototype_loss(
    teacher: Float[Tensor, "m d"], labels: Int[Tensor, " m"], prototypes: Float[Tensor, "u d"]
) -> Float[Tensor, ""]:
    """Cosine distance between segments and the prototype of their class, as in K-means.

    Args:
        teacher: The teacher's embedding of each segment; it gets no gradient.
        labels: Index of each segment's prototype; segments with a negative label are left out.
        prototypes: Embedding of each class, the only argument with a gradient.

    Returns:
        Mean of 1 minus the cosine over the labeled segments; zero, with a graph, if there is none.

    Source: CLIP-S4, eq. 4.

    Example:
        >>> import torch
        >>> teacher, labels = torch.eye(2), torch.tensor([1, -1])  # the second has no prototype
        >>> prototype_loss(teacher, labels, prototypes=torch.eye(2))
        tensor(1.)
    """
    # Negative labels are clamped for the lookup and masked out below.
    cosines = (
        _cosines(teacher.detach(), prototypes)
        .gather(1, labels.long().clamp_min(0)[:, None])
        .squeeze(1)
    )

    # Segments that belong to one of the prototypes.
    labeled = labels >= 0
    return ((1 - cosines) * labeled).sum() / labeled.sum().clamp_min(1)


def _cosines(first: Float[Tensor, "m d"], second: Float[Tensor, "k d"]) -> Float[Tensor, "m k"]:
    """Cosine of every pair of rows."""
    return F.normalize(first, dim=1) @ F.normalize(second, dim=1).T

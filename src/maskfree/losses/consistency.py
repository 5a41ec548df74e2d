"""Agreement with a teacher's segments: in direction, in class, and of the class prototypes with their segments."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.precision import full_precision


@full_precision
def embedding_consistency(
    segments: Float[Tensor, "m d"], teacher: Float[Tensor, "m d"]
) -> Float[Tensor, " m"]:
    """Return 1 minus the cosine of each segment's mean embedding and the teacher's, in [0, 2]; 1 for a zero vector.

    Only directions count, so sums do as well as means. Source: CLIP-S4, eq. 2.
    """
    return 1 - F.cosine_similarity(segments, teacher, dim=1)


@full_precision
def semantic_consistency(
    cosines: Float[Tensor, "m k"], targets: Float[Tensor, "m k"], scale: float
) -> Float[Tensor, " m"]:
    """Cross-entropy in nats of each segment's class by its COSINES to the prototypes, under the TARGETS' probabilities.

    Source: CLIP-S4, eq. 3, whose targets are certain. Differs: the cosines are multiplied by SCALE; the paper prints
    none, and raw cosines (SCALE 1) are an almost even distribution over a hundred classes.
    """
    return F.cross_entropy(scale * cosines, targets, reduction="none")


@full_precision
def prototype_loss(
    teacher: Float[Tensor, "m d"], labels: Int[Tensor, " m"], prototypes: Float[Tensor, "u d"]
) -> Float[Tensor, ""]:
    """Mean of 1 minus the cosine of segments to the prototype of their class, which moves as K-means moves it.

    Segments with a negative label are none of these classes'. The gradient goes to PROTOTYPES only; zero, with a graph,
    if no segment is theirs. Source: CLIP-S4, eq. 4.
    """
    cosines = (
        _cosines(teacher.detach(), prototypes)
        .gather(1, labels.long().clamp_min(0)[:, None])
        .squeeze(1)
    )
    theirs = labels >= 0
    return ((1 - cosines) * theirs).sum() / theirs.sum().clamp_min(1)


def _cosines(first: Float[Tensor, "m d"], second: Float[Tensor, "k d"]) -> Float[Tensor, "m k"]:
    return F.normalize(first, dim=1) @ F.normalize(second, dim=1).T

"""Local-to-global contrast: what is said of a crop must agree with what is said of the whole photo."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from maskfree.losses.precision import full_precision


@full_precision
def global_to_local(
    overall: Float[Tensor, "b p"], local: Float[Tensor, "b v p"]
) -> Float[Tensor, ""]:
    """Cross-entropy in nats of each local view's distribution under the global view's, with gradients on both sides.

    Arguments are logits. Nothing keeps it from collapsing: a constant one-hot output costs 0. Source: ViL-Seg, eq. 2
    as printed.
    """
    target = overall.softmax(-1)[:, None]
    return -(target * local.log_softmax(-1)).sum(-1).mean()


@full_precision
def self_distillation(
    teacher: Float[Tensor, "b u p"],
    student: Float[Tensor, "b v p"],
    center: Float[Tensor, " p"],
    teacher_temperature: float = 0.04,
    student_temperature: float = 0.1,
    num_shared: int = 0,
) -> Float[Tensor, ""]:
    """Cross-entropy in nats of the student's views under the teacher's, which are centerd, sharpened and constant.

    Arguments are logits. The first NUM_SHARED views of both are the same images, and a view is not compared with
    itself. Source: Caron et al. 2021, eq. 2 and algorithm 1 (arXiv:2104.14294).
    """
    target = ((teacher.detach() - center) / teacher_temperature).softmax(-1)
    logarithm = (student / student_temperature).log_softmax(-1)
    per_pair = -(target @ logarithm.mT).mean(0)  # u v
    skipped = per_pair.diagonal()[:num_shared].sum()
    return (per_pair.sum() - skipped) / (per_pair.numel() - num_shared)


def update_center(
    center: Float[Tensor, " p"], batch_mean: Float[Tensor, " p"], momentum: float = 0.9
) -> Float[Tensor, " p"]:
    """Return the running mean of the teacher's logits after one more batch."""
    return center * momentum + batch_mean * (1 - momentum)


def entropy(probabilities: Float[Tensor, "*b p"]) -> Float[Tensor, "*b"]:
    """Entropy in nats over the last axis; 0 for a sure distribution, log p for a flat one."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)

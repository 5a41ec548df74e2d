"""Local-to-global self-distillation losses, as in DINO and ViL-Seg."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from maskfree.losses.precision import full_precision

TEACHER_TEMPERATURE = 0.04
"""Temperature of the teacher's softmax, as in DINO."""


@full_precision
def global_to_local(
    overall: Float[Tensor, "b p"], local: Float[Tensor, "b v p"]
) -> Float[Tensor, ""]:
    """Cross-entropy of each local view under the global view, with gradients on both sides.

    Nothing prevents collapse: a constant one-hot output has a loss of 0.

    Args:
        overall: Logits of the global view.
        local: Logits of each local view.

    Returns:
        Mean cross-entropy over images and local views, in nats.

    Source: ViL-Seg, eq. 2 as printed.

    Example:
        >>> import torch
        >>> overall, local = torch.zeros(2, 4), torch.zeros(2, 3, 4)
        >>> global_to_local(overall, local)
        tensor(1.3863)
    """
    target = overall.softmax(-1)[:, None]
    return -(target * local.log_softmax(-1)).sum(-1).mean()


@full_precision
def self_distillation(
    teacher: Float[Tensor, "b u p"],
    student: Float[Tensor, "b v p"],
    center: Float[Tensor, " p"],
    teacher_temperature: float = TEACHER_TEMPERATURE,
    student_temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Cross-entropy of the student's views under the centered and sharpened views of the teacher.

    Args:
        teacher: Logits of the teacher's views; they get no gradient.
        student: Logits of the student's views.
        center: Running mean of the teacher's logits, which is subtracted from them.
        teacher_temperature: Temperature of the teacher's softmax; a low one sharpens the targets.
        student_temperature: Temperature of the student's softmax.

    Returns:
        Mean cross-entropy over images and pairs of views, in nats.

    Source: Caron et al. 2021, eq. 2 and algorithm 1 (arXiv:2104.14294).

    Example:
        >>> import torch
        >>> teacher, student = torch.zeros(2, 1, 4), torch.zeros(2, 3, 4)
        >>> self_distillation(teacher, student, center=torch.zeros(4))
        tensor(1.3863)
    """
    target = ((teacher.detach() - center) / teacher_temperature).softmax(-1)
    logarithm = (student / student_temperature).log_softmax(-1)
    # Cross-entropy of every teacher view with every student view.
    per_pair = -(target @ logarithm.mT).mean(0)  # u v
    return per_pair.sum() / per_pair.numel()


def update_center(
    center: Float[Tensor, " p"], batch_mean: Float[Tensor, " p"], momentum: float = 0.9
) -> Float[Tensor, " p"]:
    """Exponential moving average of the teacher's logits.

    Args:
        center: The average so far.
        batch_mean: Mean logits of the current batch.
        momentum: Weight of the average so far, in [0, 1].

    Returns:
        The average after this batch.

    Example:
        >>> import torch
        >>> center, batch_mean = torch.zeros(2), torch.ones(2)
        >>> update_center(center, batch_mean, momentum=0.75)
        tensor([0.2500, 0.2500])
    """
    return center * momentum + batch_mean * (1 - momentum)


def entropy(probabilities: Float[Tensor, "*b p"]) -> Float[Tensor, "*b"]:
    """Entropy over the last axis.

    Args:
        probabilities: Distributions; each sums to 1 over the last axis.

    Returns:
        Entropy in nats; 0 for a one-hot distribution, log p for a uniform one.
    """
    # Clamped, so that 0 log 0 is 0.
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)

"""Mutual information between the cluster assignments of paired pixels (IIC)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.precision import full_precision

_SMALLEST = torch.finfo(torch.float64).eps  # below it a probability counts as this


@full_precision
def co_occurrence(
    first: Float[Tensor, "b c h w"],
    second: Float[Tensor, "b c h w"],
    displacement: int = 0,
    mask: Float[Tensor, "b h w"] | None = None,
) -> Float[Tensor, "s s c c"]:
    """Sum over pixels of first's assignment times second's, for every shift of up to DISPLACEMENT pixels (s = 2T+1).

    Entry [T+dy, T+dx, i, j] pairs first's pixel (y+dy, x+dx) with second's (y, x); beyond the border, and where MASK
    is 0, nothing is counted. Sums of several batches may be added. Source: ViL-Seg, eq. 6 and 7; Ji et al. 2019,
    eq. 5 (arXiv:1807.06653).
    """
    if mask is not None:
        first, second = first * mask[:, None], second * mask[:, None]
    height, width = first.shape[-2:]
    padded = F.pad(first, [displacement] * 4)
    size = 2 * displacement + 1
    shifts = [
        torch.einsum("bihw,bjhw->ij", padded[..., dy : dy + height, dx : dx + width], second)
        for dy in range(size)
        for dx in range(size)
    ]
    return torch.stack(shifts).unflatten(0, (size, size))


@full_precision
def negative_mutual_information(
    counts: Float[Tensor, "s s c c"], lamb: float = 1.0
) -> Float[Tensor, ""]:
    """Minus the mutual information, in nats, of the joint distribution that all shifts together give.

    In [-log c, 0] for LAMB 1; a larger LAMB weighs the entropy of the assignments more. The joint is symmetrised, and
    its total is taken as a constant, as the original code does. Source: ViL-Seg, eq. 8. Differs: the sign, since eq. 1
    minimises the sum.
    """
    joint = counts.sum((0, 1))
    return _negative_mutual_information((joint / joint.sum().detach())[None], lamb).mean()


@full_precision
def negative_mutual_information_per_shift(
    counts: Float[Tensor, "s s c c"], lamb: float = 1.0
) -> Float[Tensor, ""]:
    """Minus the mutual information, in nats, averaged over the shifts, each with a joint distribution of its own.

    Source: the "uncollapsed" form in the code of Ji et al. 2019 (arXiv:1807.06653).
    """
    joints = counts.flatten(0, 1)
    return _negative_mutual_information(joints / joints.sum((1, 2), keepdim=True), lamb).mean()


def _negative_mutual_information(
    joints: Float[Tensor, "n c c"], lamb: float
) -> Float[Tensor, " n"]:
    joints = ((joints + joints.mT) / 2).clamp_min(_SMALLEST)
    rows = joints.sum(2, keepdim=True)
    columns = joints.sum(1, keepdim=True)
    return -(joints * (joints.log() - lamb * rows.log() - lamb * columns.log())).sum((1, 2))

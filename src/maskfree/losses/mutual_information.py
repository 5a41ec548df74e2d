"""Mutual information between the cluster assignments of paired pixels (IIC)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.precision import full_precision

_SMALLEST = torch.finfo(torch.float64).eps  # probabilities are clamped to it before the log


@full_precision
def co_occurrence(
    first: Float[Tensor, "b c h w"],
    second: Float[Tensor, "b c h w"],
    displacement: int = 0,
) -> Float[Tensor, "s s c c"]:
    """Co-occurrence counts of cluster assignments for every shift of up to T pixels.

    Counts of several batches may be added.

    Args:
        first: Soft cluster assignments of the first view.
        second: Soft cluster assignments of the second view.
        displacement: Largest shift T in pixels, in both directions.

    Returns:
        Sums over pixels, with s = 2T + 1. Entry [T+dy, T+dx, i, j] pairs pixel (y+dy, x+dx) of the
        first view with pixel (y, x) of the second; nothing is counted beyond the border.

    Source: ViL-Seg, eq. 6 and 7; Ji et al. 2019, eq. 5 (arXiv:1807.06653).

    Example:
        >>> clusters = torch.eye(2)[None, :, :, None]  # two pixels, each in its own cluster
        >>> co_occurrence(clusters, clusters)[0, 0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    # Zero padding, so that shifts beyond the border add nothing.
    height, width = first.shape[-2:]
    padded = F.pad(first, [displacement] * 4)
    size = 2 * displacement + 1
    shifts = []
    for dy in range(size):
        for dx in range(size):
            moved = padded[..., dy : dy + height, dx : dx + width]
            shifts.append(torch.einsum("bihw,bjhw->ij", moved, second))

    # From one axis of shifts to one per direction.
    return torch.stack(shifts).unflatten(0, (size, size))


@full_precision
def negative_mutual_information(
    counts: Float[Tensor, "s s c c"], lamb: float = 1.0
) -> Float[Tensor, ""]:
    """Negative mutual information of the joint distribution summed over all shifts.

    The joint is symmetrized, and its total is treated as a constant, as in the original code.

    Args:
        counts: Co-occurrence counts, from `co_occurrence`.
        lamb: Weight of the entropies of the assignments; above 1, balanced clusters are favored.

    Returns:
        Negative mutual information in nats, in [-log c, 0] for lamb 1.

    Source: ViL-Seg, eq. 8.

    Differs: the sign, since eq. 1 minimizes the sum.

    Example:
        >>> counts = torch.eye(2)[None, None]  # from co_occurrence(first_view, second_view)
        >>> negative_mutual_information(counts)
        tensor(-0.6931)
    """
    joint = counts.sum((0, 1))
    joint = joint / joint.sum().detach()

    # Symmetric, since the order of the two views does not matter.
    joint = ((joint + joint.mT) / 2).clamp_min(_SMALLEST)
    rows = joint.sum(1, keepdim=True)
    columns = joint.sum(0, keepdim=True)
    return -(joint * (joint.log() - lamb * rows.log() - lamb * columns.log())).sum()

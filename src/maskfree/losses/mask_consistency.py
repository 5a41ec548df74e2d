"""Cross-image mask consistency: two photos of one entity must find the same masks in either of them.

The caller makes logits: of the targets by the momentum model's groups of a photo, of the predictions by the other
photo's groups, both on the patches of the first (`mask_logits`). Source: arXiv:2301.09121, section 3.2, eq. 10 to 12.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.mask_arithmetic import PAPER, MaskArithmetic
from maskfree.losses.precision import full_precision

Match = Callable[[Tensor], Tensor]  # similarity (b k k) to the column of each row (b k)
_LEAST = 1e-6  # of a mask's area or range, below which it is nothing


def subgroups(similarity: Float[Tensor, "b g"], count: int) -> Int[Tensor, "b k"]:
    """Return the COUNT groups of each photo that are closest to its entity, best first.

    Raises:
        ValueError: COUNT is not between 1 and the number of groups.
    """
    if not 1 <= count <= similarity.shape[1]:
        raise ValueError(
            f"{count} subgroups: there must be 1 to {similarity.shape[1]}, the number of groups"
        )
    return similarity.topk(count, dim=1).indices


def chosen(groups: Float[Tensor, "b g d"], indices: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """Return the groups at INDICES of each photo: the paper's choice, in which the others take no part."""
    return groups.gather(1, indices[..., None].expand(-1, -1, groups.shape[2]))


def learning_only(
    groups: Float[Tensor, "b g d"], indices: Int[Tensor, "b k"]
) -> Float[Tensor, "b g d"]:
    """Return all groups, of which only those at INDICES pass a gradient: the released choice."""
    learning = torch.zeros(groups.shape[:2], dtype=torch.bool, device=groups.device).scatter(
        1, indices, True
    )
    return torch.where(learning[..., None], groups, groups.detach())


@full_precision
def mask_logits(
    groups: Float[Tensor, "b k d"], patches: Float[Tensor, "b n d"]
) -> Float[Tensor, "b k n"]:
    """Return how much each patch belongs to each group, as products over the root of their length.

    Differs: eq. 10 has no such divisor; the binding's attention and the released code do.
    """
    return groups @ patches.mT * groups.shape[-1] ** -0.5


@full_precision
def consistency(
    targets: Float[Tensor, "b k n"],
    predictions: Float[Tensor, "b k n"],
    *,
    patches: tuple[int, int],
    match: Match,
    arithmetic: MaskArithmetic = PAPER,
) -> Float[Tensor, " b"]:
    """Return for each photo the Dice loss of its predicted masks against the targets, in [0, 1].

    Both are logits on a grid of PATCHES (rows, columns), in any order of masks; no gradient reaches the targets. A
    target in which nothing reaches the threshold costs 1 and, without smoothing, teaches nothing. MATCH is
    `grouping.matching.match`. Source: arXiv:2301.09121, eq. 11 and 12, of which this is one of the two directions.
    Differs: the mean over the masks, not their sum, so that a number of groups does not change the loss's weight.

    Raises:
        ValueError: PATCHES are not the patches of the masks.
    """
    if patches[0] * patches[1] != targets.shape[2]:
        raise ValueError(
            f"masks of {targets.shape[2]} patches: the grid {patches} must have as many"
        )
    targets, predictions = (
        _enlarged(maps, patches, arithmetic.side_px) for maps in (targets.detach(), predictions)
    )
    with torch.no_grad():
        order = match(_likeness(targets, predictions, arithmetic))
    predictions = chosen(_squashed(predictions, arithmetic.squash), order)
    sure = targets.sigmoid()
    least = arithmetic.threshold * (sure.amax(2, keepdim=True) if arithmetic.relative else 1.0)
    return _dice((sure >= least).to(sure.dtype), predictions, arithmetic)


@full_precision
def over_photos(
    losses: Float[Tensor, " b"],
    present: Bool[Tensor, " b"],
    num_masks: int,
    arithmetic: MaskArithmetic = PAPER,
) -> Float[Tensor, ""]:
    """Return the mean over the photos that have a partner; zero, with a graph, if none has.

    NUM_MASKS is the number of masks of a photo. Differs in the released arithmetic: the sum over photos by NUM_MASKS,
    whatever the number of photos.
    """
    total = torch.where(present, losses, losses.detach() * 0).sum()
    return total / (num_masks if arithmetic.divide_by == "masks" else present.sum().clamp_min(1))


def _enlarged(
    maps: Float[Tensor, "b k n"], patches: tuple[int, int], side_px: int | None
) -> Float[Tensor, "b k m"]:
    if side_px is None:
        return maps
    size = (side_px, side_px)
    return F.interpolate(
        maps.unflatten(2, patches), size, mode="bilinear", align_corners=True
    ).flatten(2)


def _likeness(
    targets: Float[Tensor, "b k m"], predictions: Float[Tensor, "b k m"], arithmetic: MaskArithmetic
) -> Float[Tensor, "b k k"]:
    """How well each prediction (a column) fits each target (a row)."""
    if arithmetic.matched_on == "sigmoid":
        targets, predictions = targets.sigmoid(), predictions.sigmoid()
    cosine = F.normalize(targets, dim=2) @ F.normalize(predictions, dim=2).mT
    return cosine if arithmetic.matched_by == "cosine" else -(2 - 2 * cosine).clamp_min(0).sqrt()


def _squashed(
    maps: Float[Tensor, "b k m"], squash: Literal["sigmoid", "range"]
) -> Float[Tensor, "b k m"]:
    if squash == "sigmoid":
        return maps.sigmoid()
    least = maps.amin(2, keepdim=True)
    return (maps - least) / (maps.amax(2, keepdim=True) - least).clamp_min(_LEAST)


def _dice(
    targets: Float[Tensor, "b k m"], predictions: Float[Tensor, "b k m"], arithmetic: MaskArithmetic
) -> Float[Tensor, " b"]:
    if arithmetic.joint:
        targets, predictions = targets.flatten(1)[:, None], predictions.flatten(1)[:, None]
    shared = 2 * (targets * predictions).sum(2) + arithmetic.smoothing
    areas = targets.sum(2) + predictions.sum(2) + arithmetic.smoothing
    return (1 - shared / areas.clamp_min(_LEAST)).mean(1)

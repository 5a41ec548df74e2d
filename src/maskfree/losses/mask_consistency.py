"""Cross-image mask consistency: two photos of one entity must yield the same masks.

The caller makes the logits on the patches of one photo: the targets from that photo's groups in the
momentum model, the predictions from the other photo's groups (`mask_logits`).

Source: arXiv:2301.09121, section 3.2, eq. 10 to 12.
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

# From a similarity (b k k) to the matched column of each row (b k).
Match = Callable[[Tensor], Tensor]
_MIN_DIVISOR = 1e-6  # keeps the division by a mask's area or range finite


def subgroups(similarity: Float[Tensor, "b g"], count: int) -> Int[Tensor, "b k"]:
    """Select the groups of each photo that are most similar to its entity.

    Args:
        similarity: Similarity of each group to the photo's entity.
        count: Number of groups to select, from 1 to g.

    Returns:
        Indices of the selected groups, most similar first.

    Raises:
        ValueError: The count is not between 1 and the number of groups.
    """
    if not 1 <= count <= similarity.shape[1]:
        raise ValueError(
            f"{count} subgroups: there must be 1 to {similarity.shape[1]}, the number of groups"
        )
    return similarity.topk(count, dim=1).indices


def chosen(groups: Float[Tensor, "b g d"], indices: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """Select groups by index; the others take no part, as in the paper.

    Args:
        groups: Embeddings (or maps) of the groups.
        indices: Indices of the groups to select.

    Returns:
        The selected groups, in the order of the indices.
    """
    return groups.gather(1, indices[..., None].expand(-1, -1, groups.shape[2]))


def learning_only(
    groups: Float[Tensor, "b g d"], indices: Int[Tensor, "b k"]
) -> Float[Tensor, "b g d"]:
    """Keep all groups, but pass gradients through the selected ones only, as in the released code.

    Args:
        groups: Embeddings of the groups.
        indices: Indices of the groups that pass a gradient.

    Returns:
        All groups with unchanged values.
    """
    learning = torch.zeros(groups.shape[:2], dtype=torch.bool, device=groups.device).scatter(
        1, indices, True
    )
    return torch.where(learning[..., None], groups, groups.detach())


@full_precision
def mask_logits(
    groups: Float[Tensor, "b k d"], patches: Float[Tensor, "b n d"], *, scaled: bool = False
) -> Float[Tensor, "b k n"]:
    """Dot product of each group with each patch.

    Args:
        groups: Group embeddings.
        patches: Patch embeddings.
        scaled: Divide by the square root of d, as the released code does.

    Returns:
        Mask logits of each group.

    Source: arXiv:2301.09121, eq. 10.

    Example:
        >>> groups, patches = torch.eye(2, 4)[None], 3 * torch.eye(3, 4)[None]
        >>> mask_logits(groups, patches).tolist()
        [[[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]]
        >>> mask_logits(groups, patches, scaled=True).tolist()
        [[[1.5, 0.0, 0.0], [0.0, 1.5, 0.0]]]
    """
    products = groups @ patches.mT
    if scaled:
        products = products * groups.shape[-1] ** -0.5
    return products


@full_precision
def matched_dice(
    targets: Float[Tensor, "b k n"],
    predictions: Float[Tensor, "b k n"],
    *,
    patches: tuple[int, int],
    match: Match,
    arithmetic: MaskArithmetic = PAPER,
) -> Float[Tensor, " b"]:
    """Dice loss of each photo's predicted masks against its matched target masks.

    Args:
        targets: Mask logits of the targets, in any order of masks; they get no gradient. A target
            mask without a patch above the threshold has a loss of 1 and, without smoothing, no
            gradient.
        predictions: Mask logits of the predictions, in any order of masks.
        patches: Rows and columns of the patch grid; their product is n.
        match: Matching function, such as `maskfree.ops.matching.match`.
        arithmetic: How masks are made, matched and averaged.

    Returns:
        Dice loss of each photo, in [0, 1].

    Raises:
        ValueError: The patch grid does not have as many patches as the masks.

    Source: arXiv:2301.09121, eq. 11 and 12, of which this is one of the two directions.

    Differs: the mean over the masks, not their sum, so that the number of groups does not change
    the weight of the loss.

    Example:
        >>> from maskfree.ops.matching import match
        >>> masks = 20 * torch.eye(2)[None] - 10
        >>> matched_dice(masks, masks.flip(1), patches=(1, 2), match=match).item() < 0.001
        True
    """
    if patches[0] * patches[1] != targets.shape[2]:
        raise ValueError(
            f"masks of {targets.shape[2]} patches: the grid {patches} must have as many"
        )

    targets = _enlarged(targets.detach(), patches, arithmetic.side_px)
    predictions = _enlarged(predictions, patches, arithmetic.side_px)

    # Put the predictions in the order of the targets.
    with torch.no_grad():
        order = match(_likeness(targets, predictions, arithmetic))

    predictions = chosen(_squashed(predictions, arithmetic.squash), order)

    return _dice(_binary(targets, arithmetic).to(targets.dtype), predictions, arithmetic)


@torch.no_grad()
def target_shares(
    targets: Float[Tensor, "b k n"],
    present: Bool[Tensor, " b"],
    arithmetic: MaskArithmetic = PAPER,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Share of target masks that are empty, and share of patches that targets are sure of.

    An empty target teaches nothing: its Dice loss is 1, without a gradient.

    Args:
        targets: Mask logits of the targets.
        present: Which photos have a partner; only they count.
        arithmetic: How logits become masks.

    Returns:
        Share of masks without a patch above the threshold, and share of patches above it; both
        0 if no photo has a partner.
    """
    inside = _binary(targets, arithmetic) & present[:, None, None]
    num_masks = present.sum().clamp_min(1) * targets.shape[1]

    full = inside.any(2).sum()
    empty = present.sum() * targets.shape[1] - full
    return empty / num_masks, inside.sum() / (num_masks * targets.shape[2])


@full_precision
def over_photos(
    losses: Float[Tensor, " b"],
    present: Bool[Tensor, " b"],
    num_masks: int,
    arithmetic: MaskArithmetic = PAPER,
    num_present: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Mean over the photos that have a partner.

    Args:
        losses: Loss of each photo.
        present: Which photos have a partner.
        num_masks: Number of masks of a photo.
        arithmetic: Settings; only `divide_by` is used.
        num_present: Number of photos with a partner to divide by, where several processes share a
            batch: their mean number in a process. None: those of `present`.

    Returns:
        Mean loss; zero, with a graph, if no photo has a partner.

    Differs: the released settings divide the sum over photos by num_masks, whatever the number of
    photos.
    """
    total = torch.where(present, losses, losses.detach() * 0).sum()
    if arithmetic.divide_by == "masks":
        return total / num_masks
    if num_present is None:
        num_present = present.sum().clamp_min(1)
    return total / num_present


def _binary(targets: Float[Tensor, "b k m"], arithmetic: MaskArithmetic) -> Bool[Tensor, "b k m"]:
    """Patches above an absolute threshold, or above a share of each mask's maximum."""
    probabilities = targets.sigmoid()
    if arithmetic.relative:
        return probabilities >= arithmetic.threshold * probabilities.amax(2, keepdim=True)
    return probabilities >= arithmetic.threshold


def _enlarged(
    maps: Float[Tensor, "b k n"], patches: tuple[int, int], side_px: int | None
) -> Float[Tensor, "b k m"]:
    """Resize masks from the patch grid to a square of pixels."""
    if side_px is None:
        return maps
    size, grids = (side_px, side_px), maps.unflatten(2, patches)
    return F.interpolate(grids, size, mode="bilinear", align_corners=True).flatten(2)


def _likeness(
    targets: Float[Tensor, "b k m"], predictions: Float[Tensor, "b k m"], arithmetic: MaskArithmetic
) -> Float[Tensor, "b k k"]:
    """Similarity of each target (row) to each prediction (column)."""
    if arithmetic.matched_on == "sigmoid":
        targets, predictions = targets.sigmoid(), predictions.sigmoid()
    cosine = F.normalize(targets, dim=2) @ F.normalize(predictions, dim=2).mT
    if arithmetic.matched_by == "cosine":
        return cosine

    # The distance of unit-norm maps follows from their cosine.
    return -(2 - 2 * cosine).clamp_min(0).sqrt()


def _squashed(
    maps: Float[Tensor, "b k m"], squash: Literal["sigmoid", "range"]
) -> Float[Tensor, "b k m"]:
    """Map logits to [0, 1]."""
    if squash == "sigmoid":
        return maps.sigmoid()
    lowest, highest = maps.amin(2, keepdim=True), maps.amax(2, keepdim=True)
    return (maps - lowest) / (highest - lowest).clamp_min(_MIN_DIVISOR)


def _dice(
    targets: Float[Tensor, "b k m"], predictions: Float[Tensor, "b k m"], arithmetic: MaskArithmetic
) -> Float[Tensor, " b"]:
    """Dice loss of each photo."""
    # One long mask per photo.
    if arithmetic.joint:
        targets, predictions = targets.flatten(1)[:, None], predictions.flatten(1)[:, None]
    shared = 2 * (targets * predictions).sum(2) + arithmetic.smoothing
    areas = targets.sum(2) + predictions.sum(2) + arithmetic.smoothing
    return (1 - shared / areas.clamp_min(_MIN_DIVISOR)).mean(1)

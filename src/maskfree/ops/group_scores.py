"""Group-wise scores of GroupViT and OVSegmentor: each pixel takes the scores of one group."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.types import Groups

MAX_LOGIT_SCALE = 100.0
# As in the published code of GroupViT and OVSegmentor.
TOP_CLASSES = 5
"""Number of classes closest to a crop over which the second softmax is taken."""


def product_scores(
    groups: Groups,
    classes: Float[Tensor, "k d"],
    *,
    logit_scale: float,
    threshold: float | None,
    size: tuple[int, int],
    top_classes: int = TOP_CLASSES,
) -> Float[Tensor, "b c h w"]:
    """Score every pixel for every class by the product of two softmaxes over its group.

    A group's score is its softmax over all classes times its softmax over the classes closest to
    the whole crop.

    Args:
        groups: Groups of a batch of crops.
        classes: Unit-norm text embeddings.
        logit_scale: Factor on the cosines; capped at `MAX_LOGIT_SCALE`.
        threshold: Score below which a group is background, or the crop's highest score if that is
            less; None: no background.
        size: Height and width of the crops in pixels.
        top_classes: Number of classes closest to the crop that the second softmax is taken over.

    Returns:
        Scores in [0, 1]. With a threshold the last channel is the background: 1 where a group is
        background, else 0.

    Source: the published code of GroupViT (arXiv:2202.11094) and OVSegmentor (arXiv:2301.09121),
    which puts the background first.
    """
    scale = min(logit_scale, MAX_LOGIT_SCALE)
    logits = scale * groups.embeddings @ classes.T  # b g k

    # Second softmax over the classes closest to the whole crop: mask out the others.
    shown = (groups.overall @ classes.T).topk(min(top_classes, len(classes)), dim=1).indices
    gate = torch.full((len(logits), 1, len(classes)), -torch.inf, device=logits.device)
    gate.scatter_(2, shown[:, None], 0.0)
    scores = logits.softmax(2) * (logits + gate).softmax(2)

    # One more channel for the background.
    if threshold is not None:
        highest = scores.amax((1, 2), keepdim=True)
        empty = scores.amax(2, keepdim=True) < highest.clamp_max(threshold)
        scores = torch.cat([scores, empty.to(scores.dtype)], dim=2)

    # Each pixel takes the scores of its group.
    owner = _owner(groups, size).flatten(1)  # b hw
    return scores.gather(1, owner[..., None].expand(-1, -1, scores.shape[2])).mT.unflatten(2, size)


def _owner(groups: Groups, size: tuple[int, int]) -> Int[Tensor, "b h w"]:
    """Group of each pixel: arg-max of the bilinearly enlarged assignment."""
    if groups.assignment is not None:
        return F.interpolate(
            groups.assignment.float(), size, mode="bilinear", align_corners=False
        ).argmax(1)

    rows, columns = groups.patches

    # Without an assignment each patch is its own group.
    own = (
        torch.arange(rows * columns, device=groups.overall.device).view(1, 1, rows, columns).float()
    )
    nearest = F.interpolate(own, size, mode="nearest-exact")[0].long()
    return nearest.expand(len(groups.overall), -1, -1)

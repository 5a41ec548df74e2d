"""Scores as GroupViT and OVSegmentor make them: each pixel belongs to one group, which scores by two softmaxes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.types import Groups

MAX_LOGIT_SCALE = 100.0


def product_scores(
    groups: Groups,
    classes: Float[Tensor, "k d"],
    *,
    logit_scale: float,
    top_classes: int,
    threshold: float | None,
    size: tuple[int, int],
) -> Float[Tensor, "b c h w"]:
    """Score every pixel of crops of SIZE (height, width) for every class, in [0, 1].

    A group's score is its softmax over all classes times its softmax over the TOP_CLASSES that the crop as a whole is
    closest to. With a THRESHOLD there is one more channel, the background: 1 where the best score of the pixel's group
    is below it, or below the crop's best if that is less; else 0. Source: the published code of GroupViT
    (arXiv:2202.11094) and OVSegmentor (arXiv:2301.09121), which puts the background first.
    """
    scale = min(logit_scale, MAX_LOGIT_SCALE)
    logits = scale * groups.embeddings @ classes.T  # b g k
    shown = (groups.overall @ classes.T).topk(min(top_classes, len(classes)), dim=1).indices
    gate = torch.full((len(logits), 1, len(classes)), -torch.inf, device=logits.device)
    gate.scatter_(2, shown[:, None], 0.0)
    scores = logits.softmax(2) * (logits + gate).softmax(2)
    if threshold is not None:
        highest = scores.amax((1, 2), keepdim=True)
        empty = scores.amax(2, keepdim=True) < highest.clamp_max(threshold)
        scores = torch.cat([scores, empty.to(scores.dtype)], dim=2)
    owner = _owner(groups, size).flatten(1)  # b hw
    return scores.gather(1, owner[..., None].expand(-1, -1, scores.shape[2])).mT.unflatten(2, size)


def _owner(groups: Groups, size: tuple[int, int]) -> Int[Tensor, "b h w"]:
    """The group that each pixel belongs to most, on the assignment enlarged bilinearly."""
    if groups.assignment is not None:
        return F.interpolate(
            groups.assignment.float(), size, mode="bilinear", align_corners=False
        ).argmax(1)
    rows, columns = groups.patches
    own = (
        torch.arange(rows * columns, device=groups.overall.device).view(1, 1, rows, columns).float()
    )
    nearest = F.interpolate(own, size, mode="nearest-exact")[0].long()
    return nearest.expand(len(groups.overall), -1, -1)

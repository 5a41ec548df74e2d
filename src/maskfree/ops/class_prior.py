"""From noisy scores of patches to steadier ones: their neighbours', and what the photo as a whole shows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def smooth(scores: Float[Tensor, "b k hp wp"], width: int) -> Float[Tensor, "b k hp wp"]:
    """Average each score with its neighbours in a square of WIDTH patches, odd; the border repeats outwards."""
    if width == 1:
        return scores
    return F.avg_pool2d(F.pad(scores, (width // 2,) * 4, mode="replicate"), width, stride=1)


def apply_class_prior(
    scores: Float[Tensor, "b k hp wp"], share: float, most: float
) -> Float[Tensor, "b k 1 1"]:
    """How much each class is held back, at most 0: its mean margin over the best other class, where it is widest.

    The mean is over the SHARE, in (0, 1], of all patches: over all of them it would deny small things, and a maximum
    would trust one patch. A margin of MOST or more is 0: classes that win clearly somewhere are on a par. Of a single
    class nothing can be said: 0.
    """
    if scores.shape[1] == 1:
        return torch.zeros_like(scores[:, :, :1, :1])
    best = scores.topk(2, dim=1).values
    others = torch.where(scores == best[:, :1], best[:, 1:], best[:, :1])
    margins = (scores - others).flatten(2)
    clearest = margins.topk(max(1, round(share * margins.shape[2])), dim=2).values
    return (clearest.mean(2) - most).clamp_max(0)[:, :, None, None]

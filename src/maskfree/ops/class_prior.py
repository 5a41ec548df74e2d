"""Spatial smoothing of score maps, and the image-level class prior."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Chosen for the bundled model on coco-mini, together with the weight of the class prior. A mean
# over all patches would suppress small objects, and a maximum would depend on one patch.
CLASS_PRIOR_SHARE = 0.1
"""Share of the patches that the class prior averages over, those with the largest margin."""
CLASS_PRIOR_MAX = 0.1
"""Margin over the best other class from which the class prior does not lower a class at all."""
# Share of the patches at either end that a class's level leaves out, so that it does not depend on
# single patches.
_OUTERMOST = 0.02


def smooth(scores: Float[Tensor, "b k hp wp"], width: int) -> Float[Tensor, "b k hp wp"]:
    """Average each score over a square of patches, with replicate padding.

    Args:
        scores: Score maps.
        width: Side of the square in patches; odd.

    Returns:
        Smoothed scores.
    """
    if width == 1:
        return scores
    return F.avg_pool2d(F.pad(scores, (width // 2,) * 4, mode="replicate"), width, stride=1)


def apply_class_prior(
    scores: Float[Tensor, "b k hp wp"],
    share: float = CLASS_PRIOR_SHARE,
    max_margin: float = CLASS_PRIOR_MAX,
) -> Float[Tensor, "b k 1 1"]:
    """Compute the image-level class prior: a penalty for classes that win nowhere clearly.

    The penalty is the class's mean margin over the best other class, where that margin is widest.

    Args:
        scores: Score maps.
        share: Share of the patches that the mean is taken over, in (0, 1].
        max_margin: Margin from which the penalty is 0, so that classes which win clearly somewhere
            are equal.

    Returns:
        Value at most 0 to add to the scores of each class; 0 for a single class.
    """
    if scores.shape[1] == 1:
        return torch.zeros_like(scores[:, :, :1, :1])
    best = scores.topk(2, dim=1).values
    others = torch.where(scores == best[:, :1], best[:, 1:], best[:, :1])

    # Mean margin over the clearest patches of each class.
    margins = (scores - others).flatten(2)
    clearest = margins.topk(max(1, round(share * margins.shape[2])), dim=2).values
    return (clearest.mean(2) - max_margin).clamp_max(0)[:, :, None, None]


def class_levels(scores: Float[Tensor, "b k hp wp"]) -> Float[Tensor, "b k 1 1"]:
    """Return the level of each class: the middle between its lowest and its highest scores.

    Args:
        scores: Score maps, on the CPU.

    Returns:
        Level of each class in each photo.
    """
    # NumPy sorts all several times as fast as torch finds the outermost.
    ordered = np.sort(scores.flatten(2).numpy(), axis=2)
    outermost = round(_OUTERMOST * (ordered.shape[2] - 1))

    lowest, highest = ordered[:, :, outermost], ordered[:, :, -1 - outermost]
    return torch.from_numpy((lowest + highest) / 2)[:, :, None, None]

"""Prompt denoising and key smoothing of dense scores, the two refinements of MaskCLIP.

Scores here are cosines (b k n) of n patches and k classes.

Source: arXiv:2112.01071, section 3.2.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def unlikely_classes(
    cosines: Float[Tensor, "b k n"], threshold: float, logit_scale: float = 100.0
) -> Bool[Tensor, "b k"]:
    """Find classes that no patch assigns a sufficient probability (prompt denoising).

    Args:
        cosines: Cosines of classes and patches.
        threshold: Smallest probability, in a softmax over the classes, that some patch must reach.
        logit_scale: Factor on the cosines before the softmax.

    Returns:
        True for classes to remove; none are removed if all classes of a photo would be.

    Differs: the published code removes all of them in that case, and then labels the photo as its
    first class.
    """
    highest = (logit_scale * cosines).softmax(1).amax(2)
    unlikely = highest < threshold
    return unlikely & ~unlikely.all(1, keepdim=True)


def key_weights(keys: Float[Tensor, "b c n"]) -> Float[Tensor, "b n n"]:
    """Compute the weights of key smoothing: cosines of the patches' keys.

    The equation does not normalize the weights, which changes the scale of a patch's scores but not
    their order.

    Args:
        keys: Key of each patch, in columns.

    Returns:
        Weight of each patch (column) for each patch (row); absolute values of a row sum to 1.

    Differs: the published code normalizes each channel of the keys over the patches.
    """
    unit = F.normalize(keys, dim=1)
    similarity = unit.mT @ unit
    # A key of zeros gets weights of zero.
    return similarity / similarity.abs().sum(2, keepdim=True).clamp_min(1e-12)


def smooth_by_keys(
    scores: Float[Tensor, "b k n"],
    weights: Float[Tensor, "b n n"],
    sure: Float[Tensor, "b n"],
    threshold: float,
) -> Float[Tensor, "b k n"]:
    """Replace the scores of uncertain patches by the weighted sum over all patches.

    Args:
        scores: Scores of classes and patches.
        weights: Weights as from `key_weights`.
        sure: Confidence of each patch.
        threshold: Confidence below which a patch's scores are replaced.

    Returns:
        Smoothed scores.
    """
    return torch.where(sure[:, None] < threshold, scores @ weights.mT, scores)

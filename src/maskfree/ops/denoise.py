"""MaskCLIP's two refinements of dense scores: classes that no patch is sure of go, patches with like keys agree.

Source: arXiv:2112.01071, section 3.2. Scores here are cosines (b k n) of n patches to k classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def unlikely_classes(
    cosines: Float[Tensor, "b k n"], threshold: float, logit_scale: float = 100.0
) -> Bool[Tensor, "b k"]:
    """Say of which classes no patch is at least THRESHOLD sure, in a softmax over the classes.

    Where that is so of every class of a photo, all stay. Differs: the published code drops all of them, and then calls
    the photo by its first class.
    """
    highest = (logit_scale * cosines).softmax(1).amax(2)
    unlikely = highest < threshold
    return unlikely & ~unlikely.all(1, keepdim=True)


def key_weights(keys: Float[Tensor, "b c n"]) -> Float[Tensor, "b n n"]:
    """Return how much each patch (row) hears each other: the cosine of their keys; absolute values of a row sum to 1.

    The equation divides by nothing, which changes the length of a patch's scores but not their order. Differs: the
    published code takes the length of keys over the patches (`published_key_weights`).
    """
    unit = F.normalize(keys, dim=1)
    similarity = unit.mT @ unit
    return similarity / similarity.abs().sum(2, keepdim=True).clamp_min(
        1e-12
    )  # keys of zeros hear nobody


def published_key_weights(keys: Float[Tensor, "b c n"]) -> Float[Tensor, "b n n"]:
    """Return the weights as the released code computes them, for comparisons with it.

    Each channel has length 1 over the patches of the photo, instead of each patch over the channels; and a row sums to
    anything.
    """
    scaled = F.normalize(keys, dim=2)
    return scaled.mT @ scaled


def smooth_by_keys(
    scores: Float[Tensor, "b k n"],
    weights: Float[Tensor, "b n n"],
    sure: Float[Tensor, "b n"],
    threshold: float,
) -> Float[Tensor, "b k n"]:
    """Replace the scores of patches whose SURE is below THRESHOLD by the weighted sum of all; 1 is every patch."""
    return torch.where(sure[:, None] < threshold, scores @ weights.mT, scores)

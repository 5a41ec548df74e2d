"""Words as training text: what a caption names must be found somewhere, and what a tagger names, where it says."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from maskfree.losses.precision import full_precision


@full_precision
def word_log_probabilities(
    pixels: Float[Tensor, "b n d"],
    words: Float[Tensor, "k d"],
    scale: Float[Tensor, ""],
    frequencies: Float[Tensor, " k"],
    prior: float,
) -> Float[Tensor, "b n k"]:
    """Log-probability of each word at each pixel, in nats, from unit-norm embeddings.

    The logits are shifted by PRIOR times the log of each word's frequency, so that the cosines need not learn how
    common a word is and inference, which leaves the shift out, is not drawn to common words. Source: logit adjustment,
    Menon et al. 2021, eq. 10 (arXiv:2007.07314).
    """
    shift = prior * (frequencies / frequencies.mean()).clamp_min(1e-5).log()
    return (scale * pixels @ words.T + shift).log_softmax(-1)


@full_precision
def bag_of_words(
    log_probabilities: Float[Tensor, "b n k"], weights: Float[Tensor, "b k"]
) -> Float[Tensor, ""]:
    """Cross-entropy in nats of a photo's words, by WEIGHTS, under the mean of its pixels' distributions.

    No pixel is told which word it is: each word of the photo has to be somebody's.
    """
    pooled = log_probabilities.logsumexp(1) - math.log(log_probabilities.shape[1])
    return -(weights * pooled).sum(-1).mean()


@full_precision
def pixel_words(
    log_probabilities: Float[Tensor, "b n k"], targets: Float[Tensor, "b n k"]
) -> Float[Tensor, ""]:
    """Cross-entropy in nats of each pixel's words under TARGETS, the tagger's probabilities there."""
    return -torch.einsum("bnk,bnk->", targets, log_probabilities) / targets.shape[:2].numel()

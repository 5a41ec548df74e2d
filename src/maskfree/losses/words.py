"""Word-level losses: multiple-instance loss over image-level nouns and loss on per-pixel words."""

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
    """Log-probability of each word at each pixel, with logit adjustment by word frequency.

    The logits are shifted by the log of each word's frequency during training only, so that the
    cosines do not learn how common a word is and inference is not biased to common words.

    Args:
        pixels: Unit-norm pixel embeddings.
        words: Unit-norm word embeddings.
        scale: Inverse temperature that multiplies the cosines.
        frequencies: How often each word occurs in the training data; only ratios to the mean count.
        prior: Weight of the log frequencies; 0 for none.

    Returns:
        Log-probabilities over the words, in nats.

    Source: logit adjustment, Menon et al. 2021, eq. 10 (arXiv:2007.07314).

    Example:
        >>> pixels, words = torch.eye(2, 4)[None], torch.zeros(4, 4)
        >>> word_log_probabilities(pixels, words, torch.tensor(1.0), torch.ones(4), 0.0).shape
        torch.Size([1, 2, 4])
    """
    # Clamped, since the log of a word that never occurs is -inf.
    shift = prior * (frequencies / frequencies.mean()).clamp_min(1e-5).log()
    return (scale * pixels @ words.T + shift).log_softmax(-1)


@full_precision
def bag_of_words(
    log_probabilities: Float[Tensor, "b n k"], weights: Float[Tensor, "b k"]
) -> Float[Tensor, ""]:
    """Multiple-instance loss over image-level nouns.

    The words of an image are compared with the mean of its pixels' distributions, so no pixel needs
    a label.

    Args:
        log_probabilities: Log-probability of each word at each pixel, in nats.
        weights: Weight of each word in each image.

    Returns:
        Mean cross-entropy per image, in nats.

    Example:
        >>> log_probabilities = torch.full((1, 6, 4), 0.25).log()
        >>> bag_of_words(log_probabilities, weights=torch.tensor([[0.5, 0.5, 0.0, 0.0]]))
        tensor(1.3863)
    """
    # Log of the mean probability over the pixels.
    pooled = log_probabilities.logsumexp(1) - math.log(log_probabilities.shape[1])
    return -(weights * pooled).sum(-1).mean()


@full_precision
def pixel_words(
    log_probabilities: Float[Tensor, "b n k"], targets: Float[Tensor, "b n k"]
) -> Float[Tensor, ""]:
    """Cross-entropy of each pixel's words under the tagger's probabilities.

    Args:
        log_probabilities: Log-probability of each word at each pixel, in nats.
        targets: The tagger's probability of each word at each pixel.

    Returns:
        Mean cross-entropy per pixel, in nats.

    Example:
        >>> probabilities = torch.full((1, 6, 4), 0.25)
        >>> pixel_words(probabilities.log(), targets=probabilities)
        tensor(1.3863)
    """
    return -torch.einsum("bnk,bnk->", targets, log_probabilities) / targets.shape[:2].numel()

"""Scores of arbitrary words from a classifier with a fixed vocabulary, by text similarity.

A classifier knows a fixed list of tags, each with texts for its names. The closer a tag's texts are
to a word's, the more of its probability goes to the word.

Source: the idea is of Norouzi et al. 2014 (arXiv:1312.5650).
Differs: each tag's probability goes to the words closest to it, instead of the mean embedding of
the tags being compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

# Added to the photo's mean scores, so that a word that scores nowhere is not ruled out.
_MIN_PHOTO_SCORE = 0.01


@dataclass(frozen=True)
class TagWeighting:
    """How tag probabilities become scores of words, and the weight of these scores."""

    weight: float
    """Weight of the log scores, relative to a cosine."""
    temperature: float
    """Cosine gap to the closest word at which a word's share of a tag falls to 1/e."""
    min_cosine: float
    """Cosine of a tag and its closest word up to which the tag counts for no word."""
    cosine_range: float
    """Range of cosines above `min_cosine` over which a tag's weight rises to 1; positive."""
    min_score: float
    """Added to the scores of every word before the logarithm; positive."""
    photo_weight: float
    """Weight of the image-level log scores, relative to a patch's own."""
    neutral_score: float
    """Score of a word that no tag covers; 0 treats it as if all tags spoke against it."""
    max_uncovered_cosine: float
    """Cosine to the closest tag up to which a word counts as not covered."""


def best_cosines(
    texts: Float[Tensor, "t d"],
    owners: Int[Tensor, " t"],
    words: Float[Tensor, "p d"],
    num_tags: int,
) -> Float[Tensor, "v p"]:
    """Return the highest cosine between the names of each tag and each word.

    Args:
        texts: Unit-norm embeddings of the names of all tags.
        owners: Tag of each name, in [0, num_tags).
        words: Unit-norm embeddings of the words.
        num_tags: Number of tags.

    Returns:
        Maximum over a tag's names; -1 for a tag without names.
    """
    cosines = texts @ words.T
    nothing = torch.full((num_tags, len(words)), -1.0, dtype=cosines.dtype, device=cosines.device)
    return nothing.scatter_reduce(0, owners[:, None].expand_as(cosines), cosines, "amax")


def with_kinds(names: Float[Tensor, "v p"], kinds: Float[Tensor, "v p"]) -> Float[Tensor, "v p"]:
    """Combine the cosines of a tag's names and of its hypernyms (kinds).

    A name that matches the word counts as it is. Otherwise the hypernym weighs as much as the name,
    so that a hot dog, a kind of food, counts less for dogs.

    Args:
        names: Highest cosine of the names.
        kinds: Highest cosine of the kinds; -1 for a tag without kinds, where the names decide.

    Returns:
        One cosine for each tag and word.
    """
    mixed = torch.maximum(kinds, (names + kinds) / 2)
    return torch.where((names > 0.9) | (kinds <= -1), names, mixed)


def tag_weights(
    cosines: Float[Tensor, "v p"], temperature: float, min_cosine: float, cosine_range: float
) -> Float[Tensor, "v p"]:
    """Return the share of each tag's probability that each word gets.

    The closest word gets the largest share; others decay exponentially with their cosine gap.

    Args:
        cosines: Cosines of tags and words.
        temperature: Cosine gap to the closest word at which the share falls to 1/e.
        min_cosine: Cosine up to which the closest word gets nothing.
        cosine_range: Cosine above `min_cosine` from which the closest word gets everything;
            positive.

    Returns:
        Shares in [0, 1].
    """
    best = cosines.amax(1, keepdim=True)
    rise = ((best - min_cosine) / cosine_range).clamp(0, 1)
    return ((cosines - best) / temperature).exp() * rise


def log_scores(
    scores: Float[Tensor, "b p h w"], min_score: float, photo_weight: float
) -> Float[Tensor, "b p h w"]:
    """Return the logarithm of the scores, plus a weighted logarithm of the photo's mean scores.

    Args:
        scores: Scores of each patch for each word, in [0, 1].
        min_score: Added to the scores before the logarithm; positive.
        photo_weight: Weight of the logarithm of the photo's mean scores; 0 turns it off.

    Returns:
        Log scores.
    """
    overall = scores.mean((2, 3), keepdim=True)
    return (scores + min_score).log() + photo_weight * (overall + _MIN_PHOTO_SCORE).log()


def reweighted_by_photo(probabilities: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v h w"]:
    """Weight patch probabilities by the photo's mean probabilities and renormalize.

    Args:
        probabilities: Probabilities of each patch over the tags.

    Returns:
        Probabilities that sum to 1 over the tags.
    """
    return F.normalize(probabilities * probabilities.mean((2, 3), keepdim=True), p=1, dim=1)


def word_scores(
    probabilities: Float[Tensor, "b v h w"],
    cosines: Float[Tensor, "v p"],
    weighting: TagWeighting,
) -> Float[Tensor, "b p h w"]:
    """Distribute tag probabilities over words.

    Args:
        probabilities: Probabilities of each patch over the tags.
        cosines: Cosines of tags and words.
        weighting: How the probabilities are distributed.

    Returns:
        Score of each patch for each word, in [0, 1].
    """
    shares = tag_weights(
        cosines, weighting.temperature, weighting.min_cosine, weighting.cosine_range
    )
    return torch.einsum("bvhw,vp->bphw", probabilities, shares)


def weighted_log_scores(
    scores: Float[Tensor, "b p h w"],
    cosines: Float[Tensor, "v p"],
    weighting: TagWeighting,
) -> Float[Tensor, "b p h w"]:
    """Turn word scores into weighted log scores; a word that no tag covers gets a neutral value.

    Args:
        scores: Score of each patch for each word, in [0, 1].
        cosines: Cosines of tags and words.
        weighting: Weights of the logarithms, and the neutral score.

    Returns:
        Values to add to cosines.
    """
    logs = log_scores(scores, weighting.min_score, weighting.photo_weight)

    if weighting.neutral_score:
        above = cosines.amax(0) - weighting.max_uncovered_cosine
        covered = (above / weighting.cosine_range).clamp(0, 1)[:, None, None]
        # log_scores adds the photo's log scores with weight `photo_weight`, hence the factor.
        neutral = torch.full_like(covered, weighting.neutral_score).log()
        neutral = neutral * (1 + weighting.photo_weight)
        logs = covered * logs + (1 - covered) * neutral

    return weighting.weight * logs

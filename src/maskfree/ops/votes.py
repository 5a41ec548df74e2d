"""Votes of a classifier with a fixed vocabulary for arbitrary words, by text similarity.

A classifier knows a fixed list of entries, each with texts for its names. The closer an entry's
texts are to a word's, the more of its probability goes to the word.

Source: the idea is of Norouzi et al. 2014 (arXiv:1312.5650).
Differs: each entry votes for the words closest to it, instead of the mean embedding of the entries
being compared.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

# Added to the photo's mean votes, so that a word without votes is not ruled out.
_LEAST_SHARE = 0.01


def best_cosines(
    texts: Float[Tensor, "t d"],
    owners: Int[Tensor, " t"],
    words: Float[Tensor, "p d"],
    num_entries: int,
) -> Float[Tensor, "v p"]:
    """Return the highest cosine between the names of each entry and each word.

    Args:
        texts: Unit-norm embeddings of the names of all entries.
        owners: Entry of each name, in [0, num_entries).
        words: Unit-norm embeddings of the words.
        num_entries: Number of entries.

    Returns:
        Maximum over an entry's names; -1 for an entry without names.
    """
    cosines = texts @ words.T
    nothing = torch.full(
        (num_entries, len(words)), -1.0, dtype=cosines.dtype, device=cosines.device
    )
    return nothing.scatter_reduce(0, owners[:, None].expand_as(cosines), cosines, "amax")


def with_kinds(names: Float[Tensor, "v p"], kinds: Float[Tensor, "v p"]) -> Float[Tensor, "v p"]:
    """Combine the cosines of an entry's names and of its hypernyms (kinds).

    A name that matches the word counts as it is. Otherwise the hypernym weighs as much as the name,
    so that a hot dog, a kind of food, votes less for dogs.

    Args:
        names: Highest cosine of the names.
        kinds: Highest cosine of the kinds; -1 for an entry without kinds, where the names decide.

    Returns:
        One cosine for each entry and word.
    """
    mixed = torch.maximum(kinds, (names + kinds) / 2)
    return torch.where((names > 0.9) | (kinds <= -1), names, mixed)


def ballots(
    cosines: Float[Tensor, "v p"], temperature: float, least: float, reach: float
) -> Float[Tensor, "v p"]:
    """Return the share of each entry's probability that each word gets.

    The closest word gets the largest share; others decay exponentially with their cosine gap.

    Args:
        cosines: Cosines of entries and words.
        temperature: Cosine gap to the closest word at which the share falls to 1/e.
        least: Cosine up to which the closest word gets nothing.
        reach: Cosine above `least` from which the closest word gets everything; positive.

    Returns:
        Shares in [0, 1].
    """
    best = cosines.amax(1, keepdim=True)
    return ((cosines - best) / temperature).exp() * ((best - least) / reach).clamp(0, 1)


def log_votes(
    votes: Float[Tensor, "b p h w"], floor: float, whole: float
) -> Float[Tensor, "b p h w"]:
    """Return the logarithm of the votes, plus a weighted logarithm of the photo's mean votes.

    Args:
        votes: Votes of each patch for each word, in [0, 1].
        floor: Added to the votes before the logarithm; positive.
        whole: Weight of the logarithm of the photo's mean votes; 0 turns it off.

    Returns:
        Log votes.
    """
    overall = votes.mean((2, 3), keepdim=True)
    return (votes + floor).log() + whole * (overall + _LEAST_SHARE).log()


def settled(probabilities: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v h w"]:
    """Weight patch probabilities by the photo's mean probabilities and renormalize.

    Args:
        probabilities: Probabilities of each patch over the entries.

    Returns:
        Probabilities that sum to 1 over the entries.
    """
    return F.normalize(probabilities * probabilities.mean((2, 3), keepdim=True), p=1, dim=1)

"""Votes of a vocabulary for words: what a classifier finds at a patch speaks for the words that mean the same.

A classifier knows a fixed list of entries, each with texts for its names. The nearer an entry's texts are to a word's,
the more of its probability is the word's. Source of the idea: Norouzi et al. 2014 (arXiv:1312.5650). Differs: each
entry votes for the words that are nearest to it, instead of the mean embedding of the entries being compared.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

_LEAST_SHARE = 0.01  # of the whole photo: a word that nothing speaks for is not ruled out


def best_cosines(
    texts: Float[Tensor, "t d"],
    owners: Int[Tensor, " t"],
    words: Float[Tensor, "p d"],
    num_entries: int,
) -> Float[Tensor, "v p"]:
    """Return how near each entry is to each word.

    Args:
        texts: Embeddings of the names of all entries; unit norm.
        owners: The entry of each name, in [0, num_entries).
        words: Embeddings of the words; unit norm.
        num_entries: How many entries there are.

    Returns:
        The highest cosine of an entry's names; -1 of an entry without any.
    """
    cosines = texts @ words.T
    nothing = torch.full(
        (num_entries, len(words)), -1.0, dtype=cosines.dtype, device=cosines.device
    )
    return nothing.scatter_reduce(0, owners[:, None].expand_as(cosines), cosines, "amax")


def with_kinds(names: Float[Tensor, "v p"], kinds: Float[Tensor, "v p"]) -> Float[Tensor, "v p"]:
    """Return one cosine for each entry and word, from that of its names and that of its kinds.

    A name that is the word counts as it is. Otherwise what the entry is a kind of weighs as much as its name, so that
    a hot dog, a kind of food, speaks less for dogs.

    Args:
        names: Highest cosine of the names.
        kinds: Highest cosine of the kinds; -1 of an entry without any, where the names decide.
    """
    mixed = torch.maximum(kinds, (names + kinds) / 2)
    return torch.where((names > 0.9) | (kinds <= -1), names, mixed)


def ballots(
    cosines: Float[Tensor, "v p"], temperature: float, least: float, reach: float
) -> Float[Tensor, "v p"]:
    """Return how much of each entry's probability each word gets, in [0, 1].

    The nearest word gets all that the entry gives, others less by an exponential of how much further they are.

    Args:
        cosines: Of entries and words.
        temperature: By how much further a word is that gets 1/e of the nearest one's.
        least: Cosine up to which the nearest word gets nothing.
        reach: By how much the cosine must exceed LEAST until the entry gives everything; positive.
    """
    best = cosines.amax(1, keepdim=True)
    return ((cosines - best) / temperature).exp() * ((best - least) / reach).clamp(0, 1)


def log_votes(
    votes: Float[Tensor, "b p h w"], floor: float, whole: float
) -> Float[Tensor, "b p h w"]:
    """Return the logarithm of votes, to which those of the whole photo are added.

    Args:
        votes: Of each patch for each word, in [0, 1].
        floor: What every word gets beside its votes; positive.
        whole: Weight of the logarithm of the photo's mean votes; 0 is none.
    """
    overall = votes.mean((2, 3), keepdim=True)
    return (votes + floor).log() + whole * (overall + _LEAST_SHARE).log()


def settled(probabilities: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v h w"]:
    """Weigh what each patch shows by what the whole photo shows, and bring the sum over the entries back to 1."""
    return F.normalize(probabilities * probabilities.mean((2, 3), keepdim=True), p=1, dim=1)

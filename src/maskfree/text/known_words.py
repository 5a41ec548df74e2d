"""Whether a model knows the words that it is asked for, and can tell them apart."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from maskfree.text.tokenize import Tokenizer
from maskfree.types import Tokens

SAME = 1e-6  # embeddings are the same, but for rounding, if their cosine is so close to 1
ALIKE = 1e-4  # and hardly told apart if it is so close
_SHOWN = 5  # words or pairs named in a message

log = logging.getLogger(__name__)


def check_known(
    tokenizer: Callable[[Sequence[str]], Tokens],
    phrases: Sequence[str],
    model: str,
) -> None:
    """Warn of the words that a tokenizer knows in part, or by their letters only.

    Args:
        tokenizer: The model's; only a `Tokenizer` tells what it knows.
        phrases: The words, synonyms included.
        model: Name of the model, for the message.

    Raises:
        ValueError: The tokenizer has no piece of a word.
    """
    if not isinstance(tokenizer, Tokenizer):
        return

    if missing := [phrase for phrase in phrases if not tokenizer.knows(phrase)]:
        raise ValueError(
            f"the model {model} does not know {_listed(missing)}: its tokenizer has no piece of it"
        )
    if partly := [phrase for phrase in phrases if tokenizer.unknown(phrase)]:
        log.warning(
            "the model %s knows only a part of %s, and not the rest", model, _listed(partly)
        )
    if spelled := [phrase for phrase in phrases if tokenizer.spells(phrase)]:
        log.warning(
            "the model %s knows the letters of %s, hardly the meaning", model, _listed(spelled)
        )


def check_distinct(
    phrases: Sequence[str],
    class_of: Sequence[int],
    tokens: Sequence[tuple[int, ...]],
    embeddings: Float[Tensor, "p d"],
    model: str,
) -> None:
    """Warn of words of different classes whose embeddings are nearly the same.

    Args:
        phrases: The words, synonyms included.
        class_of: Index of the class of each; synonyms need not be told apart.
        tokens: Ids of the tokens of each word in a prompt.
        embeddings: Of each word, unit norm.
        model: Name of the model, for the message.

    Raises:
        ValueError: Two words of different classes have the same tokens or the same embedding.
    """
    gaps = 1 - embeddings.float() @ embeddings.float().T
    classes = torch.tensor(class_of, device=gaps.device)
    close = ((gaps < ALIKE) & (classes[:, None] != classes)).triu(1).nonzero().tolist()

    same = _equal(tokens, class_of)
    same |= {(one, other) for one, other in close if gaps[one, other] < SAME}
    if same:
        first, second = (phrases[index] for index in min(same))
        raise ValueError(
            f"the model {model} cannot tell {_paired(phrases, same)}: "
            f"leave one out, or make them synonyms as in {first}/{second}"
        )
    if close:
        log.warning("the model %s can hardly tell %s", model, _paired(phrases, close))


def _equal(tokens: Sequence[tuple[int, ...]], class_of: Sequence[int]) -> set[tuple[int, int]]:
    """Pairs of words of different classes that have the same tokens."""
    places = defaultdict(list)
    for index, ids in enumerate(tokens):
        places[ids].append(index)
    pairs = (pair for equal in places.values() for pair in combinations(equal, 2))
    return {(one, other) for one, other in pairs if class_of[one] != class_of[other]}


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _paired(phrases: Sequence[str], pairs: Iterable[Sequence[int]]) -> str:
    ordered = sorted(map(tuple, pairs))
    shown = ", ".join(
        f"{phrases[one]!r} from {phrases[other]!r}" for one, other in ordered[:_SHOWN]
    )
    return shown if len(ordered) <= _SHOWN else f"{shown} and others"

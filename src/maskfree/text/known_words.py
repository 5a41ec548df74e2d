"""Check that a model knows the given words and can distinguish them."""

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

# Gap of the cosine to 1 below which two embeddings are equal up to rounding.
SAME = 1e-6
# Gap below which two classes are hardly distinguishable.
ALIKE = 1e-4
_MAX_SHOWN = 5  # most words or pairs in a message

log = logging.getLogger(__name__)


def check_known(
    tokenizer: Callable[[Sequence[str]], Tokens],
    phrases: Sequence[str],
    model: str,
) -> None:
    """Warn about words that a tokenizer knows only in part or letter by letter.

    Args:
        tokenizer: The model's tokenizer; only a `Tokenizer` can be checked.
        phrases: The words, including synonyms.
        model: Name of the model, for the message.

    Raises:
        ValueError: The tokenizer has no token for a word.
    """
    # Other callables cannot tell what they know.
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
    """Warn about words of different classes whose embeddings are nearly equal.

    Args:
        phrases: The words, including synonyms.
        class_of: Class index of each word; synonyms need not be distinguishable.
        tokens: Token ids of each word in a prompt.
        embeddings: Unit-norm embedding of each word.
        model: Name of the model, for the message.

    Raises:
        ValueError: Two words of different classes have the same tokens or the same embedding.
    """
    # 1 minus the cosine of every pair, of which only pairs of different classes matter.
    gaps = 1 - embeddings.float() @ embeddings.float().T
    classes = torch.tensor(class_of, device=gaps.device)
    close = ((gaps < ALIKE) & (classes[:, None] != classes)).triu(1).nonzero().tolist()

    same = _equal(tokens, class_of)
    for one, other in close:
        if gaps[one, other] < SAME:
            same.add((one, other))

    if same:
        one, other = min(same)
        first, second = phrases[one], phrases[other]
        raise ValueError(
            f"the model {model} cannot tell {_paired(phrases, same)}: "
            f"leave one out, or make them synonyms as in {first}/{second}"
        )

    if close:
        log.warning("the model %s can hardly tell %s", model, _paired(phrases, close))


def _equal(tokens: Sequence[tuple[int, ...]], class_of: Sequence[int]) -> set[tuple[int, int]]:
    """Pairs of words of different classes with the same tokens."""
    places = defaultdict(list)
    for index, ids in enumerate(tokens):
        places[ids].append(index)
    # Comparing within groups of equal tokens avoids comparing all pairs.
    pairs = set()
    for equal in places.values():
        for one, other in combinations(equal, 2):
            if class_of[one] != class_of[other]:
                pairs.add((one, other))
    return pairs


def _listed(names: Sequence[str]) -> str:
    """The first names, quoted, for a message."""
    text = ", ".join(map(repr, names[:_MAX_SHOWN]))
    if len(names) > _MAX_SHOWN:
        text += f" and {len(names) - _MAX_SHOWN} more"
    return text


def _paired(phrases: Sequence[str], pairs: Iterable[Sequence[int]]) -> str:
    """The first pairs, quoted, for a message."""
    ordered = sorted(map(tuple, pairs))
    texts = [f"{phrases[one]!r} from {phrases[other]!r}" for one, other in ordered[:_MAX_SHOWN]]
    text = ", ".join(texts)
    if len(ordered) > _MAX_SHOWN:
        text += " and others"
    return text

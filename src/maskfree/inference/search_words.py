"""The words of a search, and how close segments are to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from maskfree.inference.class_embeddings import embed_classes, embed_phrases, far_from_classes
from maskfree.inference.segmenter import Segmenter
from maskfree.text.background import words_of_no_class
from maskfree.text.vocabulary import Vocabulary

Words = tuple[str, ...]
"""A word with its synonyms."""


def parse_words(text: str | Sequence[str]) -> tuple[Words, ...]:
    """Parse the words of a search.

    Args:
        text: Words separated by commas, each with synonyms separated by slashes, as "sofa/couch";
            or a list of them.

    Returns:
        Each word with its synonyms.

    Raises:
        ValueError: There is no word, or one occurs twice.
    """
    if isinstance(text, str):
        text = [text]
    if not any(part.strip(" ,") for part in text):
        raise ValueError("the word is empty: name what to look for")
    return Vocabulary.parse(text).classes


def parse_word(word: str) -> Words:
    """Parse one word with its synonyms.

    Args:
        word: A word with synonyms separated by slashes, as "sofa/couch".

    Returns:
        The word and its synonyms.

    Raises:
        ValueError: The word is empty, or there are several words.
    """
    classes = parse_words(word)
    if len(classes) != 1:
        raise ValueError(
            f"{word!r} names {len(classes)} words: one at a time, with synonyms as in sofa/couch"
        )
    return classes[0]


@dataclass(frozen=True, eq=False)
class Query:
    """A word that is looked for."""

    texts: Float[Tensor, "p d"]
    """Unit-norm embeddings of its synonyms."""
    others: Float[Tensor, "n d"]
    """Unit-norm embeddings of everyday words that mean something else; there may be none."""
    scale: float
    """Factor on the cosines of the others before they are averaged."""

    def scores(self, segments: Float[Tensor, "s d"]) -> Float[Tensor, " s"]:
        """Score segments: the cosine of the best synonym, less the soft mean of other words.

        A segment that is close to all words, as pictures of many things are, is then no better
        than one that is close to this word alone.

        Args:
            segments: Unit-norm embeddings of the segments.

        Returns:
            Score of each segment; without other words the cosine itself.
        """
        own = (segments @ self.texts.T).amax(1)
        if not len(self.others):
            return own

        total = (self.scale * segments @ self.others.T).logsumexp(1)
        return own - (total - math.log(len(self.others))) / self.scale


@torch.inference_mode()
def make_queries(
    segmenter: Segmenter, words: Sequence[Words], background: Literal["auto", "none"]
) -> list[Query]:
    """Embed words that are looked for, and everyday words that mean none of them.

    Args:
        segmenter: Model and prompts; its own words are not used.
        words: Words to look for, each with its synonyms.
        background: auto: everyday words are compared with; none: cosines alone count.

    Returns:
        One query per word.

    Raises:
        ValueError: The model does not know a word.
    """
    method, tokenizer, templates = segmenter.method, segmenter.tokenizer, segmenter.templates
    texts = [
        embed_classes(method, tokenizer, templates, Vocabulary((word,)), segmenter.name).float()
        for word in words
    ]
    scale = segmenter.logit_scale
    if background == "none":
        return [Query(own, own[:0], scale) for own in texts]

    # Embed each everyday word once, for all queries.
    other_words = [words_of_no_class(Vocabulary((word,))) for word in words]
    everyday = list(dict.fromkeys(other for others in other_words for other in others))
    embedded = embed_phrases(method, tokenizer, templates, everyday)[0].float()
    places = {word: place for place, word in enumerate(everyday)}

    queries = []
    for own, others in zip(texts, other_words, strict=True):
        known = embedded[[places[other] for other in others]]
        queries.append(Query(own, known[far_from_classes(known, own)], scale))
    return queries

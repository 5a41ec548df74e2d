"""Entities in captions by exact comparison of words, as the authors of OVSegmentor filter CC12M."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from maskfree.text.entities import EntitySet, Mention

# The tokenizer takes a full stop off at the end of a text only.
_SENTENCES = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class ExactWords:
    """Finds words of an entity set that are written as in the list: no other case or inflection.

    Words are those of NLTK's tokenizer: "T-shirt" is one, "man's" has "man", "cat/dog" is one.

    Raises:
        ValueError: A word of the set has a space, or the packages of the extra `entities` are
            missing.

    Source: arXiv:2301.09121, section 3.1.2, as released.

    Differs: sentences end at . ! and ? before a space, without NLTK's model of abbreviations.
    """

    entity_set: EntitySet
    """Words and their entities."""

    def __post_init__(self) -> None:
        for word in self.entity_set.words:
            if " " in word:
                raise ValueError(
                    f"the entity {word!r} has a space: an exact match compares single words"
                )
        _tokenizer()

    @property
    def entities(self) -> tuple[str, ...]:
        """Names of the entities.

        Returns:
            Those of the set.
        """
        return self.entity_set.entities

    @property
    def lines(self) -> str:
        """The entity list as text.

        Returns:
            That of the set.
        """
        return self.entity_set.lines

    def mentions(self, caption: str) -> tuple[Mention, ...]:
        """Find the words of the set in a caption.

        Args:
            caption: Text of the caption.

        Returns:
            The mentions, in the order of the text.
        """
        found = []
        position = 0
        for token in _words(caption):
            start = caption.find(token, position)
            # The tokenizer rewrites quotation marks.
            if start < 0:
                continue
            position = start + len(token)
            if token in self._entity_of:
                found.append(Mention(start, position, self._entity_of[token]))
        return tuple(found)

    @cached_property
    def _entity_of(self) -> dict[str, str]:
        """Entity of each word."""
        return dict(self.entity_set.pairs)


def _words(caption: str) -> Iterator[str]:
    """Words and punctuation marks of a caption."""
    tokenizer = _tokenizer()
    for sentence in _SENTENCES.split(caption):
        yield from tokenizer.tokenize(sentence)


def _tokenizer() -> Any:
    """NLTK's tokenizer, which needs no data."""
    try:
        from nltk.tokenize.destructive import NLTKWordTokenizer
    except ImportError as error:
        raise ValueError(
            "an exact match needs the package nltk: pip install maskfree[entities]"
        ) from error
    return NLTKWordTokenizer()

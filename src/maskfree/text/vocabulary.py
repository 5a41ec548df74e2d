"""The classes that a user names: words, synonyms, and the rules they must keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

MAX_CLASSES = 1000
MAX_CHARACTERS = 100
_JOINERS = {0x200C: None, 0x200D: None}  # of letters, as in Persian, and of emoji


@dataclass(frozen=True)
class Vocabulary:
    """Classes in the order given; each is a tuple of synonyms of which the first names it."""

    classes: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, words: Sequence[str]) -> Vocabulary:
        """Read words as a user types them: a comma separates classes, a slash synonyms.

        Raises:
            ValueError: no, too many, empty, repeated, too long or multi-line words, or no texts at all.

        >>> Vocabulary.parse(["dog,grass", "sofa / couch"]).classes
        (('dog',), ('grass',), ('sofa', 'couch'))
        """
        words = _texts(words)
        for typed in words:
            if typed.splitlines() not in ([], [typed]):
                raise ValueError(
                    f"the word {typed[:MAX_CHARACTERS]!r} has a newline: a word is one line"
                )
        written = list(chain.from_iterable(typed.split(",") for typed in words))
        if not written:
            raise ValueError("no words were given: at least one is needed")
        if len(written) > MAX_CLASSES:
            raise ValueError(f"{len(written)} classes were given: {MAX_CLASSES} is the most")
        classes = tuple(
            tuple(_clean(word, typed) for word in typed.split("/")) for typed in written
        )
        seen: set[str] = set()
        for word in chain.from_iterable(classes):
            if word.casefold() in seen:
                raise ValueError(
                    f"the word {word!r} is repeated: each word, synonyms included, may occur once"
                )
            seen.add(word.casefold())
        return cls(classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The first synonym of each class."""
        return tuple(synonyms[0] for synonyms in self.classes)

    def flatten(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return all phrases, synonyms included, and beside each the index of its class.

        >>> Vocabulary.parse(["dog", "sofa/couch"]).flatten()
        (('dog', 'sofa', 'couch'), (0, 1, 1))
        """
        phrases = tuple(chain.from_iterable(self.classes))
        return phrases, tuple(
            index for index, synonyms in enumerate(self.classes) for _ in synonyms
        )

    def find(self, word: str) -> int:
        """Return the index of the class that WORD, any of its synonyms, names; upper and lower case are one.

        Raises:
            ValueError: no class has that word.
        """
        sought = " ".join(word.split()).casefold()
        for index, synonyms in enumerate(self.classes):
            if sought in (synonym.casefold() for synonym in synonyms):
                return index
        raise ValueError(f"the word {word!r} is not among the classes {', '.join(self.names)}")


def _texts(words: Any) -> list[str]:
    """WORDS as a list, or ValueError where they are no texts in an order."""
    if isinstance(words, str):
        return [words]
    if words is None or isinstance(words, bytes | Mapping | Set) or not isinstance(words, Iterable):
        kind = "None" if words is None else f"a {type(words).__name__}"
        raise ValueError(f"the words are {kind}: give a list of texts, as ['cat', 'sofa/couch']")
    listed = list(islice(words, MAX_CLASSES + 1))
    for word in listed:
        if not isinstance(word, str):
            raise ValueError(
                f"the word {repr(word)[:MAX_CHARACTERS]} is no text: give 'cat', and synonyms in one text, 'cat/kitten'"
            )
    return listed


def _clean(word: str, typed: str) -> str:
    cleaned = " ".join(word.split())
    if not cleaned:
        raise ValueError(f"an empty word in {typed!r}: every word needs a letter")
    if len(cleaned) > MAX_CHARACTERS:
        raise ValueError(
            f"the word {cleaned[:20] + '...'!r} has {len(cleaned)} characters: {MAX_CHARACTERS} is the most"
        )
    if not cleaned.translate(_JOINERS).isprintable():
        raise ValueError(f"the word {cleaned!r} has a control character: a word is printable text")
    return cleaned

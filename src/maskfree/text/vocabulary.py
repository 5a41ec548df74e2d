"""Vocabulary of class names and synonyms, as given by a user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

MAX_CLASSES = 1000
MAX_CHARACTERS = 100
# Zero-width joiners, which are not printable but are needed in Persian and in emoji.
_JOINERS = {0x200C: None, 0x200D: None}


@dataclass(frozen=True)
class Vocabulary:
    """Classes in the given order, each with its synonyms."""

    classes: tuple[tuple[str, ...], ...]
    """Synonyms of each class; the first one is its name."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Vocabulary:
        """Parse words as a user types them.

        Args:
            words: Texts; a comma separates classes, a slash synonyms.

        Returns:
            The vocabulary.

        Raises:
            ValueError: There is no word, or too many, or one is empty, repeated, too long, has
                several lines or is not a text.

        Example:
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

        classes = tuple(map(_synonyms, written))
        # A word that occurs twice would make the class ambiguous.
        known: set[str] = set()
        for word in chain.from_iterable(classes):
            if word.casefold() in known:
                raise ValueError(
                    f"the word {word!r} is repeated: each word, synonyms included, may occur once"
                )

            known.add(word.casefold())

        return cls(classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes.

        Returns:
            The first synonym of each class.
        """
        return tuple(synonyms[0] for synonyms in self.classes)

    def flatten(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """All phrases with the index of their class.

        Returns:
            The phrases, including synonyms, and the class index of each.

        Example:
            >>> Vocabulary.parse(["dog", "sofa/couch"]).flatten()
            (('dog', 'sofa', 'couch'), (0, 1, 1))
        """
        phrases: list[str] = []
        class_of: list[int] = []
        for index, synonyms in enumerate(self.classes):
            phrases += synonyms
            class_of += [index] * len(synonyms)
        return tuple(phrases), tuple(class_of)

    def find(self, word: str) -> int:
        """Index of the class with a given word.

        Args:
            word: Any synonym of the class, in any case.

        Returns:
            Index of the class.

        Raises:
            ValueError: No class has that word.
        """
        # Words are kept with single spaces; case is ignored.
        sought = " ".join(word.split()).casefold()
        for index, synonyms in enumerate(self.classes):
            if sought in map(str.casefold, synonyms):
                return index
        raise ValueError(f"the word {word!r} is not among the classes {', '.join(self.names)}")


def _texts(words: Any) -> list[str]:
    """List of the given texts; ValueError if they are no texts in an order."""
    # One text is a list of one text, not of its letters.
    if isinstance(words, str):
        return [words]
    if words is None or isinstance(words, bytes | Mapping | Set) or not isinstance(words, Iterable):
        kind = f"a {type(words).__name__}"
        if words is None:
            kind = "None"
        raise ValueError(f"the words are {kind}: give a list of texts, as ['cat', 'sofa/couch']")

    # One more than allowed is enough to notice, even for an endless iterable.
    listed = list(islice(words, MAX_CLASSES + 1))
    for word in listed:
        if not isinstance(word, str):
            raise ValueError(
                f"the word {repr(word)[:MAX_CHARACTERS]} is no text: "
                "give 'cat', and synonyms in one text, 'cat/kitten'"
            )

    return listed


def _synonyms(typed: str) -> tuple[str, ...]:
    """Synonyms of a class as it was typed."""
    return tuple(_clean(word, typed) for word in typed.split("/"))


def _clean(word: str, typed: str) -> str:
    """A word with single spaces; ValueError if it is empty, too long or unprintable."""
    cleaned = " ".join(word.split())
    if not cleaned:
        raise ValueError(f"an empty word in {typed!r}: every word needs a letter")
    if len(cleaned) > MAX_CHARACTERS:
        raise ValueError(
            f"the word {cleaned[:20] + '...'!r} has {len(cleaned)} characters: "
            f"{MAX_CHARACTERS} is the most"
        )
    if not cleaned.translate(_JOINERS).isprintable():
        raise ValueError(f"the word {cleaned!r} has a control character: a word is printable text")

    return cleaned

"""Entities in captions: the words of an entity set. Needs the extra `entities`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from maskfree.files.atomic import read_text
from maskfree.text.lexicon import inflections, word_tag

_CLASSES = Path(__file__).parents[1] / "data" / "classes"
_LIST = "_entities.txt"  # suffix of the entity lists' file names

# Unicode hyphen, non-breaking hyphen, ASCII hyphen-minus.
_HYPHENS = "\u2010\u2011-"
WORD = re.compile(rf"\w+(?:[{_HYPHENS}]\w+)*")
_NEXT = re.compile(rf"(?:\s+and)?(?:\s|[{_HYPHENS}])+([^\W\d_]+)")
_HYPHEN = re.compile(f"[{_HYPHENS}]")
NOUN, _ADJECTIVE = "NN", "JJ"
# Words that are modifiers before one of these parts of speech: an orange shirt, a light blue shirt.
_MODIFIERS = {"orange": (NOUN, _ADJECTIVE), "light": (_ADJECTIVE,)}


class Mention(NamedTuple):
    """Mention of an entity in a caption: characters start to end (exclusive)."""

    start: int
    end: int
    entity: str


@dataclass(frozen=True)
class EntitySet:
    """Words that captions may use for things, each with its entity, as in ("couch", "sofa").

    Raises:
        ValueError: The set is empty, or a word or an entity is empty or not made of words, or a
            word occurs twice or has two entities.
    """

    pairs: tuple[tuple[str, str], ...]
    """Pairs of a word and the name of its entity."""

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("the entity list is empty: at least one word is needed")

        listed: dict[str, tuple[int, str, str]] = {}
        for line, (word, entity) in enumerate(self.pairs, 1):
            for text in (word, entity):
                if not _spelling(text):
                    raise ValueError(f"entity list, line {line}: {text!r} is not a word")

            # A word may occur again in another spelling, but only for the same entity.
            first, other, same = listed.setdefault(_spelling(word), (line, entity, word))
            if other != entity:
                raise ValueError(
                    f"entity list, line {line}: "
                    f"the word {word!r} is {other!r} already, by line {first}"
                )
            if first != line and same == word:
                raise ValueError(
                    f"entity list, line {line}: "
                    f"the word {word!r} is there twice, first in line {first}"
                )

    @classmethod
    def read(cls, source: str) -> EntitySet:
        """Read an entity list of the package, such as "ovsegmentor", or a file.

        Args:
            source: Name of a list of the package, or path of a file. A line of the file is `word:
                entity`, or a word that is its own entity.

        Returns:
            The entity set.

        Raises:
            FileNotFoundError: The source is neither.
            ValueError: The file is not an entity list; the message names the line.
        """
        shipped = {}
        for path in sorted(_CLASSES.glob(f"*{_LIST}")):
            shipped[path.name.removesuffix(_LIST)] = path

        path = shipped.get(source) or Path(source)
        if not path.is_file():
            raise FileNotFoundError(
                f"no entity list {source!r}: give {', '.join(shipped)} or a file"
            )

        # Errors name the file beside the line.
        lines = read_text(path).rstrip().splitlines()
        try:
            return cls(tuple(_pair(line) for line in lines))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @property
    def lines(self) -> str:
        """Text of a file that `read` reads.

        Returns:
            One line `word: entity` per word.
        """
        return "".join(f"{word}: {entity}\n" for word, entity in self.pairs)

    @property
    def words(self) -> tuple[str, ...]:
        """All words, as written in the list.

        Returns:
            The words, in the order of the list.
        """
        return tuple(word for word, _ in self.pairs)

    @property
    def entities(self) -> tuple[str, ...]:
        """Names of the entities, without duplicates.

        Returns:
            The names, in the order of the list.
        """
        return tuple(dict.fromkeys(entity for _, entity in self.pairs))

    def mentions(self, caption: str) -> tuple[Mention, ...]:
        """Find the words of this set in a caption, in any inflection, case and hyphenation.

        A word inside another word is no mention ("carpet" is no car), but the last part of a
        compound is ("school-bus"). Words count in any sense ("glass" in "a glass door", "glasses"
        that are worn), except "orange" before a noun or an adjective and "light" before an
        adjective, which are modifiers there.

        Args:
            caption: Text of the caption.

        Returns:
            The mentions, in the order of the text; they do not overlap.

        Raises:
            ValueError: The packages of the extra `entities` are missing.

        Differs: the original counts those modifiers too.
        """
        forms, openings = self._forms
        text = caption.lower()
        # Lowercasing lengthens a few letters, which would shift the offsets.
        if len(text) != len(caption):
            text = caption

        found: list[Mention] = []
        end = 0
        for match in WORD.finditer(text):
            word, start = match[0], match.start()
            if start < end:  # inside the phrase found last
                continue
            if word in openings and (phrase := self._phrase(text, start)):
                found.append(phrase)
                end = phrase.end
            elif word in forms:
                if word not in _MODIFIERS or not _modifies(text, match):
                    found.append(Mention(start, match.end(), forms[word]))
            elif not word.isalnum():
                # A compound with hyphens: the whole, or else its last part.
                head = _HYPHEN.split(word)[-1]
                plain = _HYPHEN.sub("-", word)
                if plain in forms:
                    found.append(Mention(start, match.end(), forms[plain]))
                elif head in forms:
                    found.append(Mention(match.end() - len(head), match.end(), forms[head]))

        return tuple(found)

    def _phrase(self, text: str, start: int) -> Mention | None:
        """Longest form of several words at the given position."""
        forms, openings = self._forms
        opening = WORD.match(text, start)
        assert opening is not None, "a word starts there"

        # The candidate words, as many as the longest phrase with this first word has.
        words = list(islice(WORD.finditer(text, start), max(openings[opening[0]])))

        # Only white space may stand between the words of a phrase.
        for number, (word, following) in enumerate(pairwise(words), 1):
            if text[word.end() : following.start()].strip():
                words = words[:number]
                break

        spellings = [_HYPHEN.sub("-", word[0]) for word in words]
        for number in range(len(words), 1, -1):
            phrase = " ".join(spellings[:number])
            if phrase in forms:
                return Mention(start, words[number - 1].end(), forms[phrase])

        return None

    @cached_property
    def _forms(self) -> tuple[dict[str, str], dict[str, set[int]]]:
        """Entity of each spelling, and the lengths in words of the phrases with each first word."""
        listed = {_spelling(word): entity for word, entity in self.pairs}

        # Listed spellings take precedence over inflections of other words.
        forms = dict(listed)
        for word, entity in listed.items():
            for form in inflections(word):
                forms.setdefault(form, entity)

        openings: dict[str, set[int]] = {}
        for form in forms:
            first, *others = form.split(" ")
            if others:
                openings.setdefault(first, set()).add(1 + len(others))

        return forms, openings


def masked(caption: str, mentions: Iterable[Mention], mask_token: str) -> str:
    """Replace mentions in a caption by the mask token.

    Args:
        caption: Text of the caption.
        mentions: Mentions to replace; they do not overlap.
        mask_token: Text that replaces each mention.

    Returns:
        The masked caption.

    Example:
        >>> masked("Two dogs play.", [Mention(4, 8, "dog")], "[MASK]")
        'Two [MASK] play.'
    """
    pieces, end = [], 0
    for mention in sorted(mentions):
        pieces += [caption[end : mention.start], mask_token]
        end = mention.end
    return "".join([*pieces, caption[end:]])


def entity_sentence(entities: Sequence[str], template: str) -> str:
    """Put entity names into a prompt template, joined by "and".

    Args:
        entities: Names of the entities; at least one.
        template: Template that holds `{}` exactly once.

    Returns:
        The sentence.

    Raises:
        ValueError: There is no entity, or the template does not hold `{}` exactly once.

    Source: arXiv:2301.09121, 3.2.

    Example:
        >>> entity_sentence(("dog", "ball"), "a photo of a {} in a video game.")
        'a photo of a dog and ball in a video game.'
    """
    if not entities:
        raise ValueError("no entities were given: a sentence needs at least one")
    if template.count("{}") != 1:
        raise ValueError(f"the prompt template {template!r} must hold {{}} exactly once")
    return template.replace("{}", " and ".join(entities))


def _pair(line: str) -> tuple[str, str]:
    """Word and entity of a line of an entity list."""
    word, colon, entity = line.partition(":")
    # A word alone is its own entity.
    if not colon:
        entity = word
    return " ".join(word.split()), " ".join(entity.split())


def _spelling(text: str) -> str:
    """Lower-case spelling with plain hyphens and single spaces; "" if it is not made of words."""
    words = text.split()
    if not all(map(WORD.fullmatch, words)):
        return ""
    return " ".join(_HYPHEN.sub("-", word.lower()) for word in words)


def _modifies(text: str, word: re.Match[str]) -> bool:
    """Whether a word modifies the next one; in "orange and white", "white" is the next one."""
    following = _NEXT.match(text, word.end())
    return following is not None and word_tag(following[1]).startswith(_MODIFIERS[word[0]])

"""The things that a caption names: its nouns, and the words of an entity set. Needs the extra `entities`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from maskfree.files.atomic import read_text
from maskfree.text.lexicon import grammar, inflections, noun_lemma, word_tag

_CLASSES = Path(__file__).parents[1] / "data" / "classes"
_LIST = "_entities.txt"  # how the names of the lists end

# Nouns of captions that name a place in the picture, an amount or nothing that can be seen.
_ABSTRACT = """
air amount area attempt back background bit bottom bunch camera couple day distance edge end front group image kind left
lot middle midair number object other pair part photo photograph picture piece point right scene shot side something
someone sort time top variety view way whilst
"""
ABSTRACT = frozenset(_ABSTRACT.split())

_HYPHENS = "\u2010\u2011-"  # Unicode's own, the one that never breaks, and the keyboard's
_WORD = re.compile(rf"\w+(?:[{_HYPHENS}]\w+)*")
_NEXT = re.compile(rf"(?:\s+and)?(?:\s|[{_HYPHENS}])+([^\W\d_]+)")
_HYPHEN = re.compile(f"[{_HYPHENS}]")
_NOUN, _ADJECTIVE = "NN", "JJ"
# Words that say how something looks where one of these parts of speech follows: an orange shirt, a light blue shirt.
_MODIFIERS = {"orange": (_NOUN, _ADJECTIVE), "light": (_ADJECTIVE,)}


class Mention(NamedTuple):
    """Characters START to END (not included) of a caption name ENTITY."""

    start: int
    end: int
    entity: str


@dataclass(frozen=True)
class EntitySet:
    """Words that captions may use for things, each with the name of its entity: ("couch", "sofa").

    Raises:
        ValueError: there is none, or a word or a name is empty, not words, there twice, or of two entities.
    """

    pairs: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("the entity list is empty: at least one word is needed")
        seen: dict[str, tuple[int, str, str]] = {}
        for line, (word, entity) in enumerate(self.pairs, 1):
            for text in (word, entity):
                if not _spelling(text):
                    raise ValueError(f"entity list, line {line}: {text!r} is not a word")
            first, other, same = seen.setdefault(_spelling(word), (line, entity, word))
            if other != entity:
                raise ValueError(
                    f"entity list, line {line}: the word {word!r} is {other!r} already, by line {first}"
                )
            if first != line and same == word:
                raise ValueError(
                    f"entity list, line {line}: the word {word!r} is there twice, first in line {first}"
                )

    @classmethod
    def read(cls, source: str) -> EntitySet:
        """Read a list that comes with the package, such as "ovsegmentor", or a file.

        A line of the file is `word: entity`, or a word that is the entity's name itself.

        Raises:
            FileNotFoundError: SOURCE is neither.
            ValueError: it is not such a list; the message names the line.
        """
        shipped = {
            path.name.removesuffix(_LIST): path for path in sorted(_CLASSES.glob(f"*{_LIST}"))
        }
        path = shipped.get(source) or Path(source)
        if not path.is_file():
            raise FileNotFoundError(
                f"no entity list {source!r}: give {', '.join(shipped)} or a file"
            )
        lines = read_text(path).rstrip().splitlines()
        try:
            return cls(tuple(_pair(line) for line in lines))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @property
    def lines(self) -> str:
        """The text of a file that `read` reads."""
        return "".join(f"{word}: {entity}\n" for word, entity in self.pairs)

    @property
    def words(self) -> tuple[str, ...]:
        """All words, as they are written in the list."""
        return tuple(word for word, _ in self.pairs)

    @property
    def entities(self) -> tuple[str, ...]:
        """The names, each once, in the order of the list."""
        return tuple(dict.fromkeys(entity for _, entity in self.pairs))

    def mentions(self, caption: str) -> tuple[Mention, ...]:
        """Find the words in CAPTION, in the order of the text: in any case, as singular or plural, in any hyphens.

        A word within another one is none ("carpet" is no car), but the last part of a compound is ("school-bus"). Words
        count whatever they mean ("glass" in "a glass door", "glasses" that are worn), except for two that are mostly
        something else: "orange" before what has that color, and "light" before a color. Differs: the original counts
        those too.

        Raises:
            ValueError: the packages of the extra `entities` are missing.
        """
        forms, openings = self._forms
        text = caption.lower()
        if len(text) != len(
            caption
        ):  # a few letters of other scripts get longer, and places must hold
            text = caption
        found: list[Mention] = []
        end = 0
        for match in _WORD.finditer(text):
            word, start = match[0], match.start()
            if start < end:  # within a phrase
                continue
            if word in openings and (phrase := self._phrase(text, start)):
                found.append(phrase)
                end = phrase.end
            elif word in forms:
                if word not in _MODIFIERS or not _modifies(text, match):
                    found.append(Mention(start, match.end(), forms[word]))
            elif not word.isalnum():
                head = _HYPHEN.split(word)[-1]
                plain = _HYPHEN.sub("-", word)
                if plain in forms:
                    found.append(Mention(start, match.end(), forms[plain]))
                elif head in forms:
                    found.append(Mention(match.end() - len(head), match.end(), forms[head]))
        return tuple(found)

    def _phrase(self, text: str, start: int) -> Mention | None:
        """The longest form of several words that TEXT has at START."""
        forms, openings = self._forms
        opening = _WORD.match(text, start)
        assert opening is not None, "a word starts there"
        words = list(_first(_WORD.finditer(text, start), max(openings[opening[0]])))
        for number in range(len(words), 1, -1):
            spelled = " ".join(_HYPHEN.sub("-", match[0]) for match in words[:number])
            gaps = (text[a.end() : b.start()] for a, b in pairwise(words[:number]))
            if spelled in forms and not any(gap.strip() for gap in gaps):
                return Mention(start, words[number - 1].end(), forms[spelled])
        return None

    @cached_property
    def _forms(self) -> tuple[dict[str, str], dict[str, set[int]]]:
        """Entity of every spelling; and of the first words of phrases, how many words those have."""
        listed = {_spelling(word): entity for word, entity in self.pairs}
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
    """Put MASK_TOKEN in the place of each of MENTIONS, which do not overlap.

    >>> masked("Two dogs play.", [Mention(4, 8, "dog")], "[MASK]")
    'Two [MASK] play.'
    """
    pieces, end = [], 0
    for mention in sorted(mentions):
        pieces += [caption[end : mention.start], mask_token]
        end = mention.end
    return "".join([*pieces, caption[end:]])


def entity_sentence(entities: Sequence[str], template: str) -> str:
    """Put the names of ENTITIES into TEMPLATE, whose words all stay. Source: arXiv:2301.09121, 3.2.

    Raises:
        ValueError: there is no entity, or TEMPLATE does not hold `{}` exactly once.

    >>> entity_sentence(("dog", "ball"), "a photo of a {} in a video game.")
    'a photo of a dog and ball in a video game.'
    """
    if not entities:
        raise ValueError("no entities were given: a sentence needs at least one")
    if template.count("{}") != 1:
        raise ValueError(f"the prompt template {template!r} must hold {{}} exactly once")
    return template.replace("{}", " and ".join(entities))


def noun_mentions(caption: str) -> tuple[Mention, ...]:
    """Find all nouns of CAPTION, abstract ones too; the entity is the lemma.

    Raises:
        ValueError: the packages of the extra `entities` are missing.
    """
    found = ((match, word_tag(match[0].lower())) for match in _WORD.finditer(caption))
    return tuple(
        Mention(match.start(), match.end(), noun_lemma(match[0].lower()))
        for match, part_of_speech in found
        if part_of_speech.startswith(_NOUN)
    )


def words_of(caption: str) -> list[str]:
    """Return the words of CAPTION in lower case, without punctuation; "T-shirt" is one."""
    return _WORD.findall(caption.lower())


@lru_cache(maxsize=100_000)
def nouns(caption: str) -> tuple[str, ...]:
    """Return the lemmas of the nouns of CAPTION that can be seen, each once, in the order of the text.

    The tagger is a rule-based one, and takes some verbs for nouns ("jumps" after "a horse").

    Raises:
        ValueError: the packages of the extra `entities` are missing.

    >>> nouns("Two dogs play with a ball in front of the houses")
    ('dog', 'ball', 'house')
    """
    tag, lemmas_of = grammar()
    found: dict[str, None] = {}
    for word, part_of_speech in tag(caption, tokenize=True):
        plain = word.lower().strip(".,!?'\"")
        if part_of_speech.startswith(_NOUN) and plain.isalpha():
            lemmas = lemmas_of(plain, "NOUN")
            found[lemmas[0] if lemmas else plain] = None
    return tuple(lemma for lemma in found if lemma not in ABSTRACT)


def _pair(line: str) -> tuple[str, str]:
    word, colon, entity = line.partition(":")
    return " ".join(word.split()), " ".join((entity if colon else word).split())


def _spelling(text: str) -> str:
    """TEXT as forms are kept: its words in lower case with plain hyphens, between single spaces; "" for no words."""
    words = text.split()
    return (
        " ".join(_HYPHEN.sub("-", word.lower()) for word in words)
        if all(map(_WORD.fullmatch, words))
        else ""
    )


def _modifies(text: str, word: re.Match[str]) -> bool:
    """Whether WORD of TEXT says how what follows looks; "orange and white" is followed by "white"."""
    following = _NEXT.match(text, word.end())
    return following is not None and word_tag(following[1]).startswith(_MODIFIERS[word[0]])


def _first(matches: Iterator[re.Match[str]], number: int) -> Iterator[re.Match[str]]:
    return (match for _, match in zip(range(number), matches, strict=False))

"""Words of English: parts of speech, singulars and plurals. Needs the extra `entities`; nothing is downloaded.

The tagger of `textblob` and the lemmatiser of `lemminflect` bring their word lists.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache

# Plurals that are no more of what their singular is, if it is a noun at all.
_PLURALS = frozenset(
    (
        "clothes",
        "glasses",
        "goggles",
        "jeans",
        "pants",
        "pajamas",
        "scissors",
        "shorts",
        "sunglasses",
    )
)


@cache
def grammar() -> tuple[Callable[..., list[tuple[str, str]]], Callable[[str, str], Sequence[str]]]:
    """Return the tagger of parts of speech and the lemmatiser, their word lists read; only training needs them.

    Raises:
        ValueError: the packages of the extra `entities` are missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # they leave it to Python to close their files
        try:
            import lemminflect
            from textblob.en import lexicon, tag
        except ImportError as error:
            reason = (
                f"nouns of captions need the package {error.name}: pip install maskfree[entities]"
            )
            raise ValueError(reason) from error
        for part in (lexicon, lexicon.morphology, lexicon.context, lexicon.entities):
            len(part)  # each is read when first asked
        lemminflect.getLemma("houses", "NOUN")
        lemminflect.getInflection("house", "NNS")
    return tag, lemminflect.getLemma


@lru_cache(maxsize=100_000)
def word_tag(word: str) -> str:
    """Return the part of speech, as in the Penn Treebank, that WORD, in lower case, most often is.

    Raises:
        ValueError: the packages of the extra `entities` are missing.
    """
    tag, _ = grammar()
    tagged = tag(word, tokenize=False) if word[0].isalpha() else []
    return tagged[0][1] if tagged else ""


@lru_cache(maxsize=100_000)
def noun_lemma(word: str) -> str:
    """Return the singular of the noun WORD, in lower case; "shorts" stay shorts.

    Raises:
        ValueError: the packages of the extra `entities` are missing.
    """
    _, lemmas_of = grammar()
    return word if word in _PLURALS else (*lemmas_of(word, "NOUN"), word)[0]


@lru_cache(maxsize=100_000)
def may_be_verb(word: str) -> bool:
    """Whether WORD, a singular in lower case, is a verb too.

    Raises:
        ValueError: the packages of the extra `entities` are missing.
    """
    grammar()
    from lemminflect import getAllLemmas

    return "VERB" in getAllLemmas(word)


def is_known(phrase: str) -> bool:
    """Whether the lexicons know the last word of PHRASE, in any case; of unknown ones the plural is by rule.

    Raises:
        ValueError: the packages of the extra `entities` are missing.
    """
    grammar()
    from lemminflect import getAllLemmas
    from textblob.en import lexicon

    last = re.split("[ -]", phrase.lower())[-1]
    return bool(getAllLemmas(last)) or last in lexicon or last.upper() in lexicon


def inflections(spelling: str) -> Iterator[str]:
    """Yield singular and plural of SPELLING, of a phrase that of its last word, in all the ways to part its words.

    Raises:
        ValueError: the packages of the extra `entities` are missing.
    """
    grammar()
    from lemminflect import getInflection, getLemma

    *first, last = re.split("([ -])", spelling)
    lemmas = getLemma(last, "NOUN")
    for singular in (last,) if last in (*lemmas, *_PLURALS) else lemmas or (last,):
        for form in (last, singular, *getInflection(singular, "NNS")):
            whole = "".join([*first, form.lower()])
            yield whole
            if first:  # T-shirt, T shirt, Tshirt
                yield from (re.sub("[ -]", mark, whole) for mark in (" ", "-", ""))

"""The things that a caption names: its nouns, as lemmas. Needs the extra `entities`; nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

# Nouns of captions that name a place in the picture, an amount or nothing that can be seen.
_ABSTRACT = """
air amount area attempt back background bit bottom bunch camera couple day distance edge end front group image kind left
lot middle midair number object other pair part photo photograph picture piece point right scene shot side something
someone sort time top variety view way whilst
"""
ABSTRACT = frozenset(_ABSTRACT.split())


@lru_cache(maxsize=100_000)
def nouns(caption: str) -> tuple[str, ...]:
    """Return the lemmas of the nouns of CAPTION that can be seen, each once, in the order of the text.

    The tagger is a rule-based one, and takes some verbs for nouns ("jumps" after "a horse").

    Raises:
        ValueError: the packages of the extra `entities` are missing.

    >>> nouns("Two dogs play with a ball in front of the houses")
    ('dog', 'ball', 'house')
    """
    tag, lemmas_of = _grammar()
    found: dict[str, None] = {}
    for word, part_of_speech in tag(caption, tokenize=True):
        plain = word.lower().strip(".,!?'\"")
        if part_of_speech.startswith("NN") and plain.isalpha():
            lemmas = lemmas_of(plain, "NOUN")
            found[lemmas[0] if lemmas else plain] = None
    return tuple(lemma for lemma in found if lemma not in ABSTRACT)


@cache
def _grammar() -> tuple[Callable[..., list[tuple[str, str]]], Callable[[str, str], Sequence[str]]]:
    """Return the tagger of parts of speech and the lemmatiser, their word lists read; only training needs them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # they leave it to Python to close their files
        try:
            import lemminflect
            from textblob.en import lexicon, tag
        except ImportError as error:
            reason = f"nouns of captions need the package {error.name}: pip install maskfree[entities]"
            raise ValueError(reason) from error
        for part in (lexicon, lexicon.morphology, lexicon.context, lexicon.entities):
            len(part)  # each is read when first asked
        lemminflect.getLemma("houses", "NOUN")
    return tag, lemminflect.getLemma

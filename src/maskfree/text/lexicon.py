"""English lexicon: parts of speech, lemmas and inflections. Needs the extra `entities`.

The tagger of `textblob` and the lemmatizer of `lemminflect` come with their word lists, so nothing
is downloaded.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache

# Plurals that do not mean several of their singular ("glasses"), or have no singular noun.
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
    """Load the part-of-speech tagger and the lemmatizer with their word lists.

    Returns:
        The tagger and the lemmatizer.

    Raises:
        ValueError: The packages of the extra `entities` are missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the packages do not close their files
        try:
            import lemminflect
            from textblob.en import lexicon, tag
        except ImportError as error:
            reason = (
                f"nouns of captions need the package {error.name}: pip install maskfree[entities]"
            )
            raise ValueError(reason) from error

        # Load all word lists now, under the filter above.
        for part in (lexicon, lexicon.morphology, lexicon.context, lexicon.entities):
            len(part)  # loads the lexicon, which is read lazily
        lemminflect.getLemma("houses", "NOUN")
        lemminflect.getInflection("house", "NNS")

    return tag, lemminflect.getLemma


@lru_cache(maxsize=100_000)
def word_tag(word: str) -> str:
    """Most frequent part of speech of a word.

    Args:
        word: Word in lower case.

    Returns:
        Tag of the Penn Treebank, such as "NN"; empty for a word without one.

    Raises:
        ValueError: The packages of the extra `entities` are missing.
    """
    tag, _ = grammar()
    if not word[0].isalpha():
        return ""

    for _, part_of_speech in tag(word, tokenize=False):
        return part_of_speech
    return ""


@lru_cache(maxsize=100_000)
def noun_lemma(word: str) -> str:
    """Singular of a noun; "shorts" and the like keep their form.

    Args:
        word: Noun in lower case.

    Returns:
        The singular, or the word itself if it is unknown.

    Raises:
        ValueError: The packages of the extra `entities` are missing.
    """
    if word in _PLURALS:
        return word

    _, lemmas_of = grammar()
    # A word that the lexicon does not know is its own lemma.
    lemma, *_ = (*lemmas_of(word, "NOUN"), word)
    return lemma


@lru_cache(maxsize=100_000)
def may_be_verb(word: str) -> bool:
    """Whether a noun can also be a verb.

    Args:
        word: Singular in lower case.

    Returns:
        True if the word has a lemma as a verb.

    Raises:
        ValueError: The packages of the extra `entities` are missing.
    """
    grammar()
    from lemminflect import getAllLemmas

    return "VERB" in getAllLemmas(word)


def is_known(phrase: str) -> bool:
    """Whether the lexicons contain the last word of a phrase; plurals of other words follow rules.

    Args:
        phrase: A word or a phrase, in any case.

    Returns:
        True if one of the lexicons has its last word.

    Raises:
        ValueError: The packages of the extra `entities` are missing.
    """
    grammar()
    from lemminflect import getAllLemmas
    from textblob.en import lexicon

    last = re.split("[ -]", phrase.lower())[-1]
    return bool(getAllLemmas(last)) or last in lexicon or last.upper() in lexicon


def inflections(spelling: str) -> Iterator[str]:
    """Singular and plural of a word or phrase, in all spellings with space, hyphen or neither.

    Args:
        spelling: Word or phrase; only its last word is inflected.

    Yields:
        The forms; some may occur twice.

    Raises:
        ValueError: The packages of the extra `entities` are missing.
    """
    grammar()
    from lemminflect import getInflection, getLemma

    # Only the last word of a phrase is inflected.
    *first, last = re.split("([ -])", spelling)
    lemmas = getLemma(last, "NOUN")
    # A word that is already singular, or has no singular, keeps its form.
    singulars = lemmas or (last,)
    if last in (*lemmas, *_PLURALS):
        singulars = (last,)

    for singular in singulars:
        for form in (last, singular, *getInflection(singular, "NNS")):
            whole = "".join([*first, form.lower()])
            yield whole
            if first:  # T-shirt, T shirt, Tshirt
                for mark in (" ", "-", ""):
                    yield re.sub("[ -]", mark, whole)

"""Nouns of captions, by the rule-based tagger of textblob. Needs the extra `entities`."""

from __future__ import annotations

from functools import lru_cache

from maskfree.text.entities import NOUN, WORD, Mention
from maskfree.text.lexicon import grammar, noun_lemma, word_tag

# Frequent caption nouns that name a position in the image, an amount or nothing visible.
_ABSTRACT = """
air amount area attempt back background bit bottom bunch camera couple day distance edge end front
group image kind left lot middle midair number object other pair part photo photograph picture piece
point right scene shot side something someone sort time top variety view way whilst
"""
ABSTRACT = frozenset(_ABSTRACT.split())


def noun_mentions(caption: str) -> tuple[Mention, ...]:
    """Find all nouns of a caption, abstract ones too.

    Args:
        caption: Text of the caption.

    Returns:
        Mentions whose entity is the noun's lemma.

    Raises:
        ValueError: The packages of the extra `entities` are missing.
    """
    found = []
    for match in WORD.finditer(caption):
        word = match[0].lower()
        if word_tag(word).startswith(NOUN):
            found.append(Mention(match.start(), match.end(), noun_lemma(word)))
    return tuple(found)


def words_of(caption: str) -> list[str]:
    """Split a caption into lower-case words without punctuation; "T-shirt" is one word.

    Args:
        caption: Text of the caption.

    Returns:
        The words, in the order of the text.
    """
    return WORD.findall(caption.lower())


@lru_cache(maxsize=100_000)
def nouns(caption: str) -> tuple[str, ...]:
    """Lemmas of the visible nouns of a caption, without duplicates.

    The part-of-speech tagger is rule-based and takes some verbs for nouns ("jumps" after "a
    horse").

    Args:
        caption: Text of the caption.

    Returns:
        The lemmas, in the order of the text, without the words in `ABSTRACT`.

    Raises:
        ValueError: The packages of the extra `entities` are missing.

    Example:
        >>> nouns("Two dogs play with a ball in front of the houses")
        ('dog', 'ball', 'house')
    """
    tag, lemmas_of = grammar()
    found: dict[str, None] = {}
    for word, part_of_speech in tag(caption, tokenize=True):
        # Strip punctuation that the tagger left on the word.
        plain = word.lower().strip(".,!?'\"")
        if part_of_speech.startswith(NOUN) and plain.isalpha():
            # A word that the lexicon does not know is its own lemma.
            lemma, *_ = (*lemmas_of(plain, "NOUN"), plain)
            found[lemma] = None

    return tuple(lemma for lemma in found if lemma not in ABSTRACT)

"""Nouns of captions by one of several part-of-speech taggers, for counting.

Whether a tagger's package is installed is checked when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from maskfree.text.lexicon import may_be_verb, noun_lemma, word_tag
from maskfree.text.nouns import words_of

Tagger = Literal["textblob", "nltk", "spacy"]
_SPACY_MODEL = "en_core_web_sm"
# Parts of speech that may precede a noun: the, his, two, in, green, wear; "" is the start.
_BEFORE_NOUNS = frozenset(
    ("", "DT", "PRP$", "CD", "IN", "JJ", "JJR", "JJS", "VB", "VBD", "VBG", "VBN", "VBP", "VBZ")
)


@dataclass(frozen=True)
class Nouns:
    """Callable that finds the noun lemmas of a caption; picklable.

    The tagger textblob looks at single words, so "jumps" is a noun in "a horse jumps" too;
    therefore the preceding word is checked. The other taggers look at the sentence and need no such
    check; their packages and models are installed separately.

    Raises:
        ValueError: The tagger's package or its model is missing.
    """

    tagger: Tagger = "textblob"
    """Part-of-speech tagger: "textblob", "nltk" or "spacy"."""

    def __call__(self, caption: str) -> dict[str, bool]:
        """Find the nouns of a caption.

        Args:
            caption: Text of the caption.

        Returns:
            The lemma of each noun, with whether it is used as a noun for sure: a word that may be a
            verb needs an article, an adjective or the like before it.
        """
        words = words_of(caption)
        tags = _tag_function(self.tagger)(words)
        found: dict[str, bool] = {}
        for place, (word, part_of_speech) in enumerate(zip(words, tags, strict=True)):
            if part_of_speech.startswith("NN") and word.isalpha():
                # Only textblob needs the check of the preceding word.
                before = ""
                if place:
                    before = tags[place - 1]
                lemma = noun_lemma(word)
                is_verb_like = self.tagger == "textblob" and may_be_verb(lemma)
                firm = not is_verb_like or before in _BEFORE_NOUNS
                # One certain use in the caption is enough.
                found[lemma] = found.get(lemma, False) or firm

        return found


@cache
def _tag_function(tagger: Tagger) -> Callable[[Sequence[str]], Sequence[str]]:
    """Function from words to Penn Treebank tags."""
    if tagger == "nltk":
        return _nltk()
    if tagger == "spacy":
        return _spacy()
    return _textblob


def _textblob(words: Sequence[str]) -> Sequence[str]:
    """Tag each word on its own."""
    return [word_tag(word) for word in words]


def _nltk() -> Callable[[Sequence[str]], Sequence[str]]:
    """Load the tagger of NLTK."""
    try:
        import nltk
    except ImportError as error:
        raise ValueError("the tagger nltk needs its package: pip install nltk") from error

    # NLTK reports a missing model only when it tags.
    try:
        nltk.pos_tag(["dog"])
    except LookupError as error:
        command = "python -m nltk.downloader averaged_perceptron_tagger_eng"
        raise ValueError(f"the tagger nltk needs its model: {command}") from error

    return lambda words: [part_of_speech for _, part_of_speech in nltk.pos_tag(list(words))]


def _spacy() -> Callable[[Sequence[str]], Sequence[str]]:
    """Load the tagger of spaCy, for captions that are already split into words."""
    try:
        import spacy
        from spacy.tokens import Doc
    except ImportError as error:
        raise ValueError("the tagger spacy needs its package: pip install spacy") from error

    try:
        # Only the tagger is needed.
        pipeline = spacy.load(_SPACY_MODEL, exclude=["parser", "ner", "lemmatizer"])
    except OSError as error:
        raise ValueError(
            f"the tagger spacy needs its model: python -m spacy download {_SPACY_MODEL}"
        ) from error

    # A Doc made of words keeps spaCy from splitting them again.
    return lambda words: [token.tag_ for token in pipeline(Doc(pipeline.vocab, words=list(words)))]

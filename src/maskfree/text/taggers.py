"""The nouns of captions for counting, by one of several taggers; which of them are there is seen when one is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from maskfree.text.entities import words_of
from maskfree.text.lexicon import may_be_verb, noun_lemma, word_tag

Tagger = Literal["textblob", "nltk", "spacy"]
_SPACY_MODEL = "en_core_web_sm"
# Parts of speech after which a noun may stand: the, his, two, in, green, wear; "" is the caption's beginning.
_BEFORE_NOUNS = frozenset(
    ("", "DT", "PRP$", "CD", "IN", "JJ", "JJR", "JJS", "VB", "VBD", "VBG", "VBN", "VBP", "VBZ")
)


@dataclass(frozen=True)
class Nouns:
    """Calling it gives the lemmas of a caption's nouns, each with whether it stands where a noun does. Picklable.

    The default tagger knows words, not sentences: to it "jumps" is a noun in "a horse jumps" too. So what stands before
    is looked at. The others know sentences, and find no such nouns; their packages and models are installed apart.

    Raises:
        ValueError: the tagger's package or its model is missing.
    """

    tagger: Tagger = "textblob"

    def __call__(self, caption: str) -> dict[str, bool]:
        """Return the nouns of CAPTION; one that may be a verb is sure after an article, an adjective and the like."""
        words = words_of(caption)
        tags = _tag_function(self.tagger)(words)
        found: dict[str, bool] = {}
        for place, (word, part_of_speech) in enumerate(zip(words, tags, strict=True)):
            if part_of_speech.startswith("NN") and word.isalpha():
                before = tags[place - 1] if place else ""
                lemma = noun_lemma(word)
                firm = (
                    self.tagger != "textblob" or before in _BEFORE_NOUNS or not may_be_verb(lemma)
                )
                found[lemma] = found.get(lemma, False) or firm
        return found


@cache
def _tag_function(tagger: Tagger) -> Callable[[Sequence[str]], Sequence[str]]:
    if tagger == "nltk":
        return _nltk()
    return _spacy() if tagger == "spacy" else _textblob


def _textblob(words: Sequence[str]) -> Sequence[str]:
    return [word_tag(word) for word in words]


def _nltk() -> Callable[[Sequence[str]], Sequence[str]]:
    try:
        import nltk
    except ImportError as error:
        raise ValueError("the tagger nltk needs its package: pip install nltk") from error
    try:
        nltk.pos_tag(["dog"])
    except LookupError as error:
        command = "python -m nltk.downloader averaged_perceptron_tagger_eng"
        raise ValueError(f"the tagger nltk needs its model: {command}") from error
    return lambda words: [part_of_speech for _, part_of_speech in nltk.pos_tag(list(words))]


def _spacy() -> Callable[[Sequence[str]], Sequence[str]]:
    try:
        import spacy
        from spacy.tokens import Doc
    except ImportError as error:
        raise ValueError("the tagger spacy needs its package: pip install spacy") from error
    try:
        pipeline = spacy.load(_SPACY_MODEL, exclude=["parser", "ner", "lemmatizer"])
    except OSError as error:
        raise ValueError(
            f"the tagger spacy needs its model: python -m spacy download {_SPACY_MODEL}"
        ) from error
    return lambda words: [token.tag_ for token in pipeline(Doc(pipeline.vocab, words=list(words)))]

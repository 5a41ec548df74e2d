"""Choosing entities from a corpus, and the taggers that find its nouns."""

from __future__ import annotations

import sys
import types
from collections import Counter

import pytest

from maskfree.text import taggers
from maskfree.text.selection import select
from maskfree.text.taggers import Nouns

pytest.importorskip("textblob", reason="textblob is in the extra 'entities'")
pytest.importorskip("lemminflect", reason="lemminflect is in the extra 'entities'")
CORPUS = (
    ["a dog jumps over the fence", "two brown dogs jump in the morning", "dogs run, a man watches"]
    * 4
    + ["a photo of a man at night", "the man rides the orange bike", "soccer players wear shorts"]
    * 4
    + ["a zebra"]
)


def counted(captions: list[str]) -> tuple[Counter[str], Counter[str]]:
    found = [Nouns()(caption) for caption in captions]
    return Counter(n for one in found for n in one), Counter(
        n for one in found for n, firm in one.items() if firm
    )


def test_frequent_things_that_can_be_seen_are_chosen():
    """No verbs though the tagger calls them nouns, no times, sports or pictures.

    Plurals where they are the thing.
    """
    pairs, as_nouns = counted(CORPUS)
    assert pairs["jump"] == 8
    assert select(pairs, as_nouns, 10, 2).entities == (
        "dog",
        "man",
        "bike",
        "fence",
        "player",
        "shorts",
    )
    assert select(pairs, as_nouns, 2, 2).pairs == (("dog", "dog"), ("man", "man"))
    assert "zebra" in select(pairs, as_nouns, 100, 1).entities


@pytest.mark.parametrize(
    ("most", "least", "words"),
    [(0, 1, "0 entities at most"), (3, 0, "0 pairs at least"), (3, 99, "no noun that can")],
)
def test_bad_choices_are_refused(most: int, least: int, words: str):
    with pytest.raises(ValueError, match=words):
        select(*counted(CORPUS), most, least)


def test_a_missing_tagger_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    taggers._tag_function.cache_clear()
    for package in ("nltk", "spacy"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=f"pip install {package}"):
            Nouns(package)("a dog")


def test_a_missing_model_says_what_to_download(monkeypatch: pytest.MonkeyPatch):
    def no_model(*_, **__):
        raise LookupError

    def no_package(*_, **__):
        raise OSError

    taggers._tag_function.cache_clear()
    monkeypatch.setitem(sys.modules, "nltk", types.SimpleNamespace(pos_tag=no_model))
    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=no_package))
    monkeypatch.setitem(sys.modules, "spacy.tokens", types.SimpleNamespace(Doc=None))
    with pytest.raises(ValueError, match=r"nltk\.downloader averaged_perceptron_tagger_eng"):
        Nouns("nltk")("a dog")
    with pytest.raises(ValueError, match="spacy download en_core_web_sm"):
        Nouns("spacy")("a dog")


def test_a_tagger_of_sentences_is_believed(monkeypatch: pytest.MonkeyPatch):
    taggers._tag_function.cache_clear()
    tags = {"a": "DT", "dog": "NN", "jumps": "VBZ"}
    nltk = types.SimpleNamespace(pos_tag=lambda words: [(word, tags[word]) for word in words])
    monkeypatch.setitem(sys.modules, "nltk", nltk)
    assert Nouns("nltk")("A dog jumps") == {"dog": True}
    assert Nouns()("A dog jumps") == {"dog": True, "jump": False}
    taggers._tag_function.cache_clear()

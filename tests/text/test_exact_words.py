"""Entities by exact words, as the authors' filter finds them."""

from __future__ import annotations

import pickle

import pytest

from maskfree.text.entities import EntitySet

pytest.importorskip("nltk", reason="nltk is in the extra 'entities'")

from maskfree.text.exact_words import ExactWords

WORDS = ExactWords(EntitySet.read("ovsegmentor"))


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A dog, a cat and the man's T-shirt.", "dog cat man T-shirt"),
        ("A bus. The kite!", "bus kite"),
        ('two people: "girl" (boy) woman', "people girl boy woman"),
        ("TV tv Tv", "TV tv"),
        # Neither other cases, nor other numbers, nor parts of compounds.
        ("Dog dogs DOGS buses Woman", ""),
        ("school-bus cat/dog t-shirt", ""),
        ("", ""),
    ],
)
def test_only_words_as_the_list_writes_them_are_found(caption, words):
    mentions = WORDS.mentions(caption)
    assert [caption[mention.start : mention.end] for mention in mentions] == words.split()
    entity_of = dict(WORDS.entity_set.pairs)
    assert [mention.entity for mention in mentions] == [entity_of[word] for word in words.split()]


def test_fewer_captions_are_kept_than_by_any_form():
    captions = ["two dogs", "a dog", "Men", "a man", "nothing"]
    exact = [bool(WORDS.mentions(caption)) for caption in captions]
    forms = [bool(WORDS.entity_set.mentions(caption)) for caption in captions]
    assert exact == [False, True, False, True, False]
    assert forms == [True, True, True, True, False]


def test_finder_goes_to_other_processes():
    assert pickle.loads(pickle.dumps(WORDS)).mentions("a dog") == WORDS.mentions("a dog")


def test_a_phrase_is_refused():
    with pytest.raises(ValueError, match="'traffic light' has a space"):
        ExactWords(EntitySet((("traffic light", "light"),)))

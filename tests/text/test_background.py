"""Background rules, and the everyday words that mean none of the classes."""

from __future__ import annotations

import pytest

from maskfree.data.benchmarks.catalog import BENCHMARKS
from maskfree.text.background import (
    BACKGROUND_WORDS,
    SCENE_WORDS,
    Background,
    default_rule,
    words_of_no_class,
)
from maskfree.text.tags import read_tags
from maskfree.text.vocabulary import Vocabulary

EVERYDAY = [entry.names[0] for entry in read_tags(BACKGROUND_WORDS)]


@pytest.mark.parametrize(
    "text", ["none", "scene", "auto", "threshold:0.25", "words:wall,sky/cloud"]
)
def test_a_rule_is_written_as_it_was_read(text: str):
    rule = Background.parse(text)
    assert str(rule) == text
    assert bool(rule) == (text != "none")


@pytest.mark.parametrize(
    "text", ["auto:3", "scene:1", "automatic", "none:1", "threshold:2", "words:"]
)
def test_other_rules_are_refused(text: str):
    with pytest.raises(ValueError):
        Background.parse(text)


def left_out(*classes: str) -> set[str]:
    """Everyday words that are no background for these classes."""
    return set(EVERYDAY) - set(words_of_no_class(Vocabulary.parse(classes)))


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("dog", {"dog"}),
        ("Dogs", {"dog"}),
        ("puppy", {"dog"}),
        ("Labrador retriever", {"dog"}),
        ("red bus", {"bus"}),
        ("cloud", {"sky"}),
        ("toddler", {"person"}),
        ("vegetation", {"tree", "grass", "plant", "flower", "potted plant"}),
        ("xylograph", set()),
    ],
)
def test_what_a_class_means_is_no_background(word: str, meant: set[str]):
    assert left_out(word) == meant


def test_a_kind_leaves_out_all_that_belong_to_it():
    assert {"dog", "cat", "zebra", "fish"} <= left_out("animal")
    assert left_out("animal").isdisjoint({"tree", "car", "person"})


def test_synonyms_count_as_their_class():
    assert left_out("sofa/couch", "zebra") == left_out("sofa") | left_out("couch") | {"zebra"}


def test_no_class_of_coco_mini_is_its_own_background():
    words = BENCHMARKS["coco-mini"].words("synonyms")
    phrases = {phrase for name in words for phrase in name.split("/")}
    kept = words_of_no_class(Vocabulary.parse(words))
    assert phrases.isdisjoint(kept)
    assert {"sky", "road", "wall", "grass"} <= set(kept)


def test_everyday_words_are_what_a_user_might_type():
    Vocabulary.parse(EVERYDAY)
    names = [name for entry in read_tags(BACKGROUND_WORDS) for name in entry.names]
    assert len(set(names)) == len(names), "each word belongs to one entry"


def test_words_for_the_scene_are_everyday_words():
    assert set(SCENE_WORDS) <= set(EVERYDAY)
    cat = words_of_no_class(Vocabulary.parse(["cat"]), scene=True)
    assert set(cat) == set(SCENE_WORDS)
    meadow = words_of_no_class(Vocabulary.parse(["meadow/forest"]), scene=True)
    assert set(SCENE_WORDS) - set(meadow) == {"grass", "tree"}


def test_few_words_get_a_background():
    assert [default_rule(number) for number in (1, 2, 3, 100)] == ["scene", "scene", "none", "none"]
    assert Background.parse("scene").chosen
    assert Background.parse("none") == Background(chosen=False), "they label the same"

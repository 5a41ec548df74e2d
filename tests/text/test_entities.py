"""Nouns of captions and words of entity sets, with the packages of the extra `entities`."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from maskfree.text.entities import EntitySet, entity_sentence, masked
from maskfree.text.lexicon import grammar, is_known
from maskfree.text.nouns import ABSTRACT, noun_mentions, nouns
from maskfree.text.templates import IMAGENET_TEMPLATES

OVSEGMENTOR = EntitySet.read("ovsegmentor")
# by the original, which strips the letter s and looks for the rest, or in lower case
NEVER_MASKED = (
    *(
        "bus",
        "spoon",
        "glass",
        "sofa",
        "shirt",
        "suitcase",
        "sink",
        "sheep",
        "skateboard",
        "skis",
        "snowboard",
    ),
    *("surfboard", "sandwich"),
)
IRREGULAR = {
    **dict.fromkeys(("man", "men"), "men"),
    **dict.fromkeys(("woman", "women"), "women"),
    **dict.fromkeys(("child", "children"), "children"),
    **{same: same for same in ("people", "sheep", "skis")},
    "knife": "knives",
    "mouse": "mice",
}


@pytest.fixture
def _grammar() -> None:
    for package in ("textblob", "lemminflect"):
        pytest.importorskip(package, reason=f"{package} is in the extra 'entities'")


needs_grammar = pytest.mark.usefixtures("_grammar")


@needs_grammar
@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Two dogs play with a ball", ("dog", "ball")),
        ("The children and women watch three puppies", ("child", "woman", "puppy")),
        ("A dog runs after another dog and other dogs", ("dog",)),
        ("A Man with a HAT stands near the Sea", ("man", "hat", "sea")),
        ('A boat, a ship and "a dog" on the water.', ("boat", "ship", "dog", "water")),
        ("a horse behind a fence !", ("horse", "fence")),
        ("the back of a photo of the left side of a house", ("house",)),
        ("A view of the top of a mountain in the background", ("mountain",)),
        ("", ()),
        ("?!. 24 7", ()),
    ],
)
def test_nouns_are_lemmas_in_the_order_of_the_text(caption: str, expected: tuple[str, ...]):
    assert nouns(caption) == expected


@needs_grammar
def test_nothing_else_comes_out():
    """Verbs, colors and what no picture shows stay out; what is left is one plain word each."""
    named = nouns(
        "In the picture a brown dog's owner quickly runs across the wide street at 10 o'clock."
    )
    assert {"dog", "owner", "street"} <= set(named)
    assert not {"brown", "quickly", "run", "wide", *ABSTRACT} & set(named)
    assert all(word.isalpha() and word == word.lower() for word in named)


@needs_grammar
def test_abstract_words_are_lemmas():
    """Else they would never be met: what is looked up among them is a lemma."""
    _, lemmas_of = grammar()
    assert not {word for word in ABSTRACT if lemmas_of(word, "NOUN")[:1] not in ((word,), ())}


@needs_grammar
def test_no_file_stays_open():
    code = (
        "from maskfree.text.nouns import nouns; assert nouns('a zyzzyvan meets George in London')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["lemminflect", "textblob"])
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str):
    if package == "textblob":
        pytest.importorskip("lemminflect", reason="the first that is missed")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{package}.en", raising=False)
    grammar.cache_clear()
    nouns.cache_clear()
    with pytest.raises(
        ValueError, match=r"need the package \S*: pip install maskfree\[entities\]"
    ) as caught:
        nouns("a dog that nobody asked for yet")
    assert package in str(caught.value)


def plural(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith(("s", "x", "ch")):
        return word + "es"
    return word[:-1] + "ies" if word.endswith(("by", "dy")) else word + "s"


@needs_grammar
@pytest.mark.parametrize("word", OVSEGMENTOR.words)
def test_each_word_of_the_paper_is_found_and_masked(word: str):
    """Alone, in plural, with a capital, with a possessive, in quotes, at the end of a sentence."""
    entity = dict(OVSEGMENTOR.pairs)[word]
    for spelled in (word, plural(word), word.capitalize(), word.upper(), plural(word).upper()):
        for caption, expected in (
            (f"A picture of {spelled} near here", "A picture of [MASK] near here"),
            (f"We see two {spelled}.", "We see two [MASK]."),
            (f"the {spelled}'s color, ({spelled})", "the [MASK]'s color, ([MASK])"),
            (f'"{spelled}" it says', '"[MASK]" it says'),
        ):
            mentions = OVSEGMENTOR.mentions(caption)
            assert {mention.entity for mention in mentions} == {entity}, caption
            assert all(caption[mention.start : mention.end] == spelled for mention in mentions)
            assert masked(caption, mentions, "[MASK]") == expected


@needs_grammar
def test_what_the_original_never_masks():
    assert len(NEVER_MASKED) == 13
    assert set(NEVER_MASKED) <= set(OVSEGMENTOR.entities)
    for entity in NEVER_MASKED:
        assert [
            mention.entity for mention in OVSEGMENTOR.mentions(f"There is the {entity}, again")
        ] == [entity]


@needs_grammar
@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("T-shirts, a t-shirt, T shirts and a tshirt", ("shirt",) * 4),
        ("T\u2011shirt and T\u2010Shirt's", ("shirt",) * 2),
        ("a school-bus at the bus-stop", ("bus",)),
        ("a carpet, scatter, boxer, glassy, dogma, oxen", ()),
        ("a dog-walker and baby-blue", ()),
        ("a tv, TVs and the TV", ("tv",) * 3),
        ("a dog_1 or dog2", ()),
        ("DOGS! dogs' ball\n(the balls)", ("dog", "dog", "ball", "ball")),
        ("an orange shirt, orange and white balls, a light blue car", ("shirt", "ball", "car")),
        ("oranges, a light, an orange.", ("orange", "light", "orange")),
        ("a light pole", ("light",)),
        ("\u0130stanbul: a dog", ("dog",)),  # its first letter gets longer in lower case
        ("", ()),
        ("\u72d7 dog", ("dog",)),
    ],
)
def test_what_is_a_mention(caption: str, expected: tuple[str, ...]):
    mentions = OVSEGMENTOR.mentions(caption)
    assert tuple(mention.entity for mention in mentions) == expected
    assert all(a.end <= b.start for a, b in pairwise(mentions))


@needs_grammar
def test_phrases_are_found_whole_and_the_longest_first():
    finder = EntitySet(
        (
            ("dog", "dog"),
            ("hot dog", "food"),
            ("hot dog stand", "stand"),
            ("traffic light", "light"),
        )
    )
    caption = "Hot  dogs at a hot dog stand, a dog, traffic-lights, hot, dog"
    found = [(caption[m.start : m.end], m.entity) for m in finder.mentions(caption)]
    assert found == [
        *(
            ("Hot  dogs", "food"),
            ("hot dog stand", "stand"),
            ("dog", "dog"),
            ("traffic-lights", "light"),
        ),
        ("dog", "dog"),
    ]


@needs_grammar
def test_a_set_is_picklable_and_words_of_the_list_win():
    finder = EntitySet(
        (("glasses", "spectacles"), ("glass", "glass"), ("short", "tiny"), ("shorts", "shorts"))
    )
    for each in (finder, pickle.loads(pickle.dumps(finder))):
        found = [
            mention.entity for mention in each.mentions("glasses, a glass, shorts and a short one")
        ]
        assert found == ["spectacles", "glass", "shorts", "tiny"]


def test_the_shipped_list_and_what_it_writes(tmp_path: Path):
    assert (len(OVSEGMENTOR.words), len(OVSEGMENTOR.entities)) == (100, 73)
    (tmp_path / "list.txt").write_text(OVSEGMENTOR.lines, encoding="utf-8")
    assert EntitySet.read(str(tmp_path / "list.txt")) == OVSEGMENTOR
    (tmp_path / "list.txt").write_text("dog\n big  cat :cat\n", encoding="utf-8")
    assert EntitySet.read(str(tmp_path / "list.txt")).pairs == (("dog", "dog"), ("big cat", "cat"))


def test_a_list_is_read_as_editors_write_it(tmp_path: Path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfdog\r\nbig\tcat : cat\r\n\r\n\n")
    assert EntitySet.read(str(tmp_path / "list.txt")).pairs == (("dog", "dog"), ("big cat", "cat"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the entity list is empty"),
        (b"dog\ncat\ndog\n", "line 3: the word 'dog' is there twice, first in line 1"),
        (b"dog: dog\nDog: animal\n", "line 2: the word 'Dog' is 'dog' already, by line 1"),
        (b"dog: dog\n: cat\n", "line 2: '' is not a word"),
        (b"dog:\n", "line 1: '' is not a word"),
        (b"dog\n?!\n", "line 2: '?!' is not a word"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_bad_lists_are_refused_in_one_line(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        EntitySet.read(str(tmp_path / "list.txt"))
    assert "\n" not in str(caught.value)
    assert "list.txt" in str(caught.value)


def test_an_unknown_list_is_named():
    with pytest.raises(FileNotFoundError, match="no entity list 'nope': give ovsegmentor"):
        EntitySet.read("nope")


@needs_grammar
def test_unknown_words_are_known():
    assert [
        word for word in ("dog", "T-shirt", "TV", "hot dog", "flurbel") if not is_known(word)
    ] == ["flurbel"]


@needs_grammar
def test_all_nouns_with_their_places():
    caption = "Two Dogs' balls, the shorts of children in front"
    found = {caption[m.start : m.end]: m.entity for m in noun_mentions(caption)}
    assert found == {
        "Dogs": "dog",
        "balls": "ball",
        "shorts": "shorts",
        "children": "child",
        "front": "front",
    }


def test_templates_are_the_eighty_of_clip():
    assert len(IMAGENET_TEMPLATES) == len(set(IMAGENET_TEMPLATES)) == 80
    assert all(
        template.count("{}") == 1 and template.strip() == template
        for template in IMAGENET_TEMPLATES
    )
    assert {
        "a bad photo of a {}.",
        "itap of my {}.",
        "a {} in a video game.",
        "a tattoo of the {}.",
    } <= {*IMAGENET_TEMPLATES}


def test_nothing_of_a_template_is_lost():
    for template in IMAGENET_TEMPLATES:
        before, after = template.split("{}")
        assert (
            entity_sentence(("dog", "ball", "sea"), template)
            == f"{before}dog and ball and sea{after}"
        )
    assert entity_sentence(["dog"], "the {}!") == "the dog!"
    for names, template in (((), "a {}"), (("dog",), "a dog"), (("dog",), "{} {}")):
        with pytest.raises(ValueError, match=r"at least one|exactly once"):
            entity_sentence(names, template)

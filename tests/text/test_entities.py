"""Nouns of captions, with the packages of the extra `entities`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from maskfree.text import entities
from maskfree.text.entities import ABSTRACT, nouns


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
    """Verbs, colours and what no picture shows stay out; what is left is one plain word each."""
    named = nouns("In the picture a brown dog's owner quickly runs across the wide street at 10 o'clock.")
    assert {"dog", "owner", "street"} <= set(named)
    assert not {"brown", "quickly", "run", "wide", *ABSTRACT} & set(named)
    assert all(word.isalpha() and word == word.lower() for word in named)


@needs_grammar
def test_abstract_words_are_lemmas():
    """Else they would never be met: what is looked up among them is a lemma."""
    _, lemmas_of = entities._grammar()
    assert not {word for word in ABSTRACT if lemmas_of(word, "NOUN")[:1] not in ((word,), ())}


@needs_grammar
def test_no_file_stays_open():
    code = "from maskfree.text.entities import nouns; assert nouns('a zyzzyvan meets George in London')"
    done = subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["lemminflect", "textblob"])
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str):
    if package == "textblob":
        pytest.importorskip("lemminflect", reason="the first that is missed")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{package}.en", raising=False)
    entities._grammar.cache_clear()
    nouns.cache_clear()
    with pytest.raises(ValueError, match=r"need the package \S*: pip install maskfree\[entities\]") as caught:
        nouns("a dog that nobody asked for yet")
    assert package in str(caught.value)

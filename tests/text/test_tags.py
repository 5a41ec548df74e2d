"""The file of a classifier's class names, and the one that comes with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskfree.data.benchmarks.catalog import CLASSES
from maskfree.text.tags import Tag, kinds_of, read_tags
from maskfree.text.vocabulary import MAX_CHARACTERS, Vocabulary

LINES = "sorrel\thorse\ntabby, tabby cat\tcat/animal\n great  ,ski \t\nsea snake\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tags.txt"
    path.write_text(LINES)
    return path


def test_a_line_is_a_class(file: Path):
    assert read_tags(file) == (
        Tag(("sorrel",), ("horse",)),
        Tag(("tabby", "tabby cat"), ("cat", "animal")),
        Tag(("great", "ski"), ()),
        Tag(("sea snake",), ()),
    )


def test_the_file_is_read_as_editors_write_it(file: Path):
    file.write_bytes(b"\xef\xbb\xbfsorrel\thorse\r\ntabby\t\r\n\r\n")
    assert read_tags(file) == (Tag(("sorrel",), ("horse",)), Tag(("tabby",), ()))


def test_kinds_are_in_the_order_of_the_alphabet_and_once(file: Path):
    file.write_text(LINES + "bay\thorse\n")
    assert kinds_of(read_tags(file)) == ("animal", "cat", "horse")
    assert kinds_of([]) == ()


@pytest.mark.parametrize(
    "line", ["", "\tdog", " , \tdog", "a" * (MAX_CHARACTERS + 1), "dog, " + "a" * 500]
)
def test_bad_line_is_numbered(file: Path, line: str):
    file.write_text(LINES + line + "\n" + LINES)
    with pytest.raises(
        ValueError, match=r"tags\.txt, line 5: a tag is `name, name<TAB>kind/kind`"
    ) as caught:
        read_tags(file)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no tags file"):
        read_tags(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match="no tags file"):
        read_tags(tmp_path)


def test_shipped_file_is_clean():
    tags = read_tags(CLASSES / "imagenet_tags.txt")
    assert len(tags) == 1000, "as many as ImageNet has classes"
    assert (tags[0].names[0], tags[999].names[0]) == ("tench", "toilet tissue")
    assert tags[339].names[0] == "sorrel" and "horse" in tags[339].kinds
    kinds = kinds_of(tags)
    assert len(kinds) > 50
    Vocabulary.parse(kinds)  # what a user might type: no empty, no repeated, none too long
    for tag in tags:
        assert 1 <= len(tag.kinds) <= 4, tag
        for name in (*tag.names, *tag.kinds):
            assert name == " ".join(name.split()), f"{name!r} has stray spaces"
            assert all(letter.isalnum() or letter in " '-./" for letter in name), name
        assert len(set(tag.names)) == len(tag.names) and len(set(tag.kinds)) == len(tag.kinds), tag
        assert all(kind == kind.lower() for kind in tag.kinds), tag

"""Class names from the command line, text files and YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskfree.label.classes import classes_text, label_classes, palette
from maskfree.label.labeled import LabelClass
from maskfree.label.words_file import WordList, read_words
from maskfree.text.vocabulary import Vocabulary


def written(folder: Path, text: str, name: str = "words.yaml") -> list[str]:
    (folder / name).write_text(text, encoding="utf-8")
    return [str(folder / name)]


def test_line_text_and_yaml_say_the_same(tmp_path: Path):
    plain = "# classes\n\ndog\n  sofa / couch\nsky\n"
    yaml = "- dog\n- sofa/couch\n- name: sky\n"
    lists = [
        read_words(["dog", "sofa/couch,sky"]),
        read_words(written(tmp_path, plain, "words.TXT")),
        read_words(written(tmp_path, yaml)),
    ]
    assert [each.vocabulary.classes for each in lists] == [
        (("dog",), ("sofa", "couch"), ("sky",))
    ] * 3
    assert len({each.sha256 for each in lists}) == 1


def test_hash_depends_on_order_and_synonyms():
    hashes = {read_words([words]).sha256 for words in ("a,b/c", "b/c,a", "a,b,c", "a/b,c")}
    assert len(hashes) == 4


def test_yaml_has_colors_ids_and_the_background_rule(tmp_path: Path):
    text = """
background: words:wall,floor
words:
  - {name: cat, synonyms: [kitten, tom cat], color: "#0a14Ff", id: 7}
  - {name: dog, synonyms: hound, color: [1, 2, 3], id: 3}
  - {name: sky, id: 300}
"""
    found = read_words(written(tmp_path, text))
    assert found == WordList(
        Vocabulary((("cat", "kitten", "tom cat"), ("dog", "hound"), ("sky",))),
        "words:wall,floor",
        (7, 3, 300),
        ((10, 20, 255), (1, 2, 3), None),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- dog\n- Dog\n", "the word 'Dog' is repeated"),
        ("- dog\n- name: puppy\n  synonyms: [dog]\n", "the word 'dog' is repeated"),
        ("words: [dog]\nwords: [cat]\n", "the key 'words' is repeated"),
        ("- {name: dog, name: cat}\n", "the key 'name' is repeated"),
        ("- {name: a, id: 1}\n- {name: b, id: 1}\n", "the id 1 of 'a' is repeated"),
        ("- {name: a, id: 1}\n- b\n", "some classes have an id and some have none"),
        ("- {name: a, id: 255}\n", "the id 255 of 'a' is none"),
        ("- {name: a, id: -1}\n", "the id -1 of 'a' is none"),
        ("- {name: a, id: true}\n", "the id True of 'a' is none"),
        ("- {name: a, color: '#12345'}\n", "the color '#12345' of 'a' is none"),
        ("- {name: a, color: [1, 2, 256]}\n", "the color (list) of 'a' is none"),
        ("- {nam: a}\n", "the key 'nam' of a class is unknown"),
        ("word: [a]\n", "the key 'word' of the file is unknown"),
        ("- yes\n", "a class is a bool"),
        ("- 12\n", "a class is a int"),
        ("- {name: no}\n", "the word False is no text"),
        ("- {synonyms: [a]}\n", "the word (NoneType) is no text"),
        ("- {name: 'a/b'}\n", "the word 'a/b' is no text without commas and slashes"),
        ("background: 3\nwords: [a]\n", "the background is no text"),
        ("words: dog\n", "`words` is no list"),
        ("[]", "`words` is no list"),
        ("", "a list of words is needed"),
        ("a: &x [1]\nb: *x\n", "it has a reference"),
        ("[" * 5000, "no YAML"),
        ("- [unclosed\n", "no YAML"),
        ("!!python/object/apply:os.system ['true']", "no YAML"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, said: str):
    with pytest.raises(ValueError) as refused:
        read_words(written(tmp_path, text))
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'words.yaml'}: ")
    assert said in message
    assert "\n" not in message
    assert len(message) < 700


def test_references_that_grow_without_bound_are_not_followed(tmp_path: Path):
    lines = ["a0: &a0 [x]"]
    for level in range(1, 40):
        many = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{many}]")
    with pytest.raises(ValueError, match="it has a reference"):
        read_words(written(tmp_path, "\n".join(lines)))


def test_files_that_are_missing_empty_or_beside_other_words(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_words([str(tmp_path / "none.yaml")])
    with pytest.raises(ValueError, match="no words were given"):
        read_words(written(tmp_path, "# nothing\n", "words.txt"))
    with pytest.raises(ValueError, match="was given with other words"):
        read_words(["dog", *written(tmp_path, "cat\n", "words.txt")])
    with pytest.raises(ValueError, match="larger than 1,048,576 bytes"):
        read_words(written(tmp_path, "- dog\n" * 200_000))


def ids(classes: tuple[LabelClass, ...]) -> dict[str, int]:
    return {each.name: each.id for each in classes}


def test_first_id_decides_where_the_background_is():
    words = read_words(["dog", "sofa/couch"])
    assert ids(label_classes(words, False, 0)) == {"dog": 0, "sofa": 1}
    assert ids(label_classes(words, True, 0)) == {"dog": 0, "sofa": 1, "background": 2}
    assert ids(label_classes(words, True, 1)) == {"dog": 1, "sofa": 2, "background": 0}
    assert ids(label_classes(words, False, 1)) == {"dog": 1, "sofa": 2}
    assert classes_text(label_classes(words, True, 0)) == "dog\nsofa/couch\nbackground\n"
    assert classes_text(label_classes(words, True, 1)) == "background\ndog\nsofa/couch\n"
    assert classes_text(label_classes(words, False, 1)) == "background\ndog\nsofa/couch\n"


def test_own_ids_leave_gaps_in_the_list():
    words = WordList(Vocabulary.parse(["dog", "cat"]), ids=(4, 2))
    assert ids(label_classes(words, True, 0)) == {"dog": 4, "cat": 2, "background": 0}
    text = classes_text(label_classes(words, False, 0))
    assert text.splitlines() == ["background", "unused-1", "cat", "unused-3", "dog"]


@pytest.mark.parametrize("first", [0, 1])
def test_no_class_is_255_the_id_of_unlabeled_pixels(first: int):
    words = read_words([f"word {number}" for number in range(300)])
    classes = label_classes(words, True, first)
    numbers = [each.id for each in classes]
    assert 255 not in numbers
    assert len(set(numbers)) == 301
    assert palette(classes) is None
    assert classes_text(classes).splitlines()[255] == "unused-255"
    few = label_classes(read_words([f"word {number}" for number in range(254)]), False, first)
    colors = palette(few)
    assert colors is not None
    assert tuple(colors[few[-1].id]) == few[-1].color


def test_a_word_cannot_be_the_background_twice():
    words = read_words(["dog", "Background"])
    assert len(label_classes(words, False, 0)) == 2
    with pytest.raises(ValueError, match="the word 'background' is also the name"):
        label_classes(words, True, 0)

"""Class names of a labeled data set, from the command line or from a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maskfree.files.atomic import read_text
from maskfree.label.labeled import UNLABELED
from maskfree.text.vocabulary import Vocabulary

YAML_SUFFIXES = (".yaml", ".yml")
"""Suffixes of files with names, synonyms, colors, ids and the background rule."""
_SUFFIXES = (*YAML_SUFFIXES, ".txt")
# A thousand classes with twenty synonyms each need about 400 kB.
_MAX_BYTES = 2**20
# Label maps have at most 16 bits.
_MAX_ID = 65535
_FILE_KEYS = ("words", "background")
_WORD_KEYS = ("name", "synonyms", "color", "id")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class WordList:
    """Classes as a person wrote them."""

    vocabulary: Vocabulary
    """Classes in their order, each with its synonyms."""
    background: str | None = None
    """Background rule, as `--background` takes it; None if the list has none."""
    ids: tuple[int, ...] | None = None
    """Id of each class; None: numbered in their order."""
    colors: tuple[tuple[int, int, int] | None, ...] = ()
    """Color of each class, red, green and blue in [0, 255], or None for a chosen one; empty if no
    class has one."""

    @property
    def sha256(self) -> str:
        """Hash of the classes and their synonyms, in their order.

        Returns:
            64 hexadecimal digits.
        """
        return hash_words(self.vocabulary.classes)


def hash_words(classes: Sequence[Sequence[str]]) -> str:
    """Hash class names and their synonyms, in their order.

    Args:
        classes: Synonyms of each class.

    Returns:
        64 hexadecimal digits.
    """
    content = json.dumps([list(synonyms) for synonyms in classes], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def read_words(words: Sequence[str]) -> WordList:
    """Read class names, or the file that holds them.

    Args:
        words: Words as `Vocabulary.parse` takes them, or one file: .txt with one class a line
            (synonyms behind slashes, lines with # are comments), or .yaml.

    Returns:
        The classes.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ValueError: The words break a rule; for those of a file the message begins with its path.
    """
    files = [word for word in words if word.lower().endswith(_SUFFIXES)]
    if not files:
        return WordList(Vocabulary.parse(words))
    if len(words) > 1:
        raise ValueError(f"the words file {files[0]!r} was given with other words: give it alone")

    path = Path(files[0]).expanduser()
    text = read_text(path, _MAX_BYTES)
    try:
        if path.suffix.lower() in YAML_SUFFIXES:
            return _of_yaml(text)
        return WordList(Vocabulary.parse(_lines(text)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _lines(text: str) -> list[str]:
    """Lines of a text file, without comments and empty ones."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


class _Loader(yaml.SafeLoader):
    """Loads plain values; refuses repeated keys, and references, which may grow without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse references."""
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has a reference (*name): write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse repeated keys, of which YAML would take the last one."""
        known = set()
        for key, _ in node.value:
            if key.value in known:
                raise ValueError(f"the key {str(key.value)[:100]!r} is repeated")
            if isinstance(key.value, str):
                known.add(key.value)
        return super().construct_mapping(node, deep)


def _of_yaml(text: str) -> WordList:
    """Classes of a YAML file: a list of them, or a mapping with `words` and `background`."""
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {' '.join(str(error).split())[:300]}") from error
    except RecursionError as error:
        raise ValueError("no YAML that is read: it is nested too deep") from error

    if isinstance(content, list):
        content = {"words": content}
    if not isinstance(content, Mapping):
        raise ValueError("a list of words is needed, or `words:` with one")
    _check_keys(content, _FILE_KEYS, "the file")

    background = content.get("background")
    if background is not None and not isinstance(background, str):
        raise ValueError("the background is no text: none, auto, threshold:T or words:W,W,...")

    entries = content.get("words")
    if not isinstance(entries, list) or not entries:
        raise ValueError("`words` is no list: begin each class with a dash")
    return _of_entries(list(map(_entry, entries)), background)


def _of_entries(entries: Sequence[Mapping[str, Any]], background: str | None) -> WordList:
    """Classes of the checked entries of a YAML file."""
    vocabulary = Vocabulary.parse(["/".join(entry["words"]) for entry in entries])

    colors = tuple(entry["color"] for entry in entries)
    if not any(colors):
        colors = ()

    ids = [entry["id"] for entry in entries if entry["id"] is not None]
    if ids and len(ids) < len(entries):
        raise ValueError("some classes have an id and some have none: give it to all or to none")
    for number, name in zip(ids, vocabulary.names, strict=False):
        if ids.count(number) > 1:
            raise ValueError(f"the id {number} of {name!r} is repeated: each class has its own")

    return WordList(vocabulary, background, tuple(ids) or None, colors)


def _entry(entry: Any) -> dict[str, Any]:
    """One class of a YAML file, checked: its words, color and id."""
    if isinstance(entry, str):
        return {"words": entry.split("/"), "color": None, "id": None}
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"a class is a {type(entry).__name__}: write its name, in quotes where YAML takes it "
            "for something else (yes, no, null, numbers), or name:, synonyms:, color: and id:"
        )

    _check_keys(entry, _WORD_KEYS, "a class")
    words = [entry.get("name")]
    synonyms = entry.get("synonyms", [])
    if not isinstance(synonyms, list):
        synonyms = [synonyms]

    words += synonyms
    for word in words:
        # "/" and "," would separate it into several.
        if not isinstance(word, str) or set(word) & set("/,"):
            raise ValueError(
                f"the word {_shown(word)} is no text without commas and slashes: write it in quotes"
            )
    return {"words": words, "color": _color(entry), "id": _id(entry)}


def _color(entry: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Color of a class: "#ff8800", or three numbers."""
    written = entry.get("color")
    if written is None:
        return None

    color: Any = written
    if isinstance(written, str) and _COLOR.fullmatch(written):
        color = list(bytes.fromhex(written[1:]))
    is_triple = isinstance(color, list) and len(color) == 3
    if not is_triple or not all(type(part) is int and 0 <= part <= 255 for part in color):
        raise ValueError(
            f"the color {_shown(written)} of {_shown(entry.get('name'))} is none: "
            "write '#ff8800' or [255, 136, 0]"
        )
    red, green, blue = color
    return red, green, blue


def _id(entry: Mapping[str, Any]) -> int | None:
    """Id of a class."""
    number = entry.get("id")
    if number is None:
        return None
    if type(number) is not int or not 0 <= number <= _MAX_ID or number == UNLABELED:
        raise ValueError(
            f"the id {_shown(number)} of {_shown(entry.get('name'))} is none: "
            f"a whole number in [0, {_MAX_ID}], but not {UNLABELED}, which is unlabeled"
        )
    return number


def _check_keys(content: Mapping[Any, Any], known: Sequence[str], what: str) -> None:
    """Refuse a key that is not known, such as a misspelled one."""
    for key in content:
        if key not in known:
            raise ValueError(f"the key {_shown(key)} of {what} is unknown: {', '.join(known)}")


def _shown(value: Any) -> str:
    """A value in a message; of lists and mappings only their kind."""
    if isinstance(value, str | int | float):
        return repr(value)[:100]
    return f"({type(value).__name__})"

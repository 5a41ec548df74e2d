"""Class names of an image classifier, each with its hypernyms ("sorrel" is a horse)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskfree.files.atomic import read_text
from maskfree.text.vocabulary import MAX_CHARACTERS

IMAGENET_TAGS = Path(__file__).parents[1] / "data" / "classes" / "imagenet_tags.txt"
"""Class names of ImageNet with their kinds, as `read_tags` reads them."""
CAPTION_CONCEPTS = IMAGENET_TAGS.with_name("caption_concepts.txt")
"""Frequent concepts in the captions of Flickr8k, with synonyms: objects and, above all, scenery."""


@dataclass(frozen=True)
class Tag:
    """Class of an image classifier."""

    names: tuple[str, ...]
    """Names of the class."""
    kinds: tuple[str, ...]
    """Plain words for the kind of thing it is, if any."""


def read_tags(path: Path) -> tuple[Tag, ...]:
    """Read a tags file.

    Args:
        path: File with a class per line, `name, name<TAB>kind/kind`, in the order of the
            classifier.

    Returns:
        The classes, in the order of the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line has no name, or one that is too long.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no tags file {path}")

    tags = []
    for number, line in enumerate(read_text(path).rstrip("\n").splitlines(), 1):
        # A class without kinds has no tab.
        names, _, kinds = line.partition("\t")
        tag = Tag(_split(names, ","), _split(kinds, "/"))
        if not tag.names or max(map(len, tag.names)) > MAX_CHARACTERS:
            raise ValueError(f"{path}, line {number}: a tag is `name, name<TAB>kind/kind`")
        tags.append(tag)

    return tuple(tags)


def kinds_of(tags: Sequence[Tag]) -> tuple[str, ...]:
    """All kinds of the given tags.

    Args:
        tags: Classes of a classifier.

    Returns:
        The kinds without duplicates, in alphabetical order.
    """
    kinds: set[str] = set()
    for tag in tags:
        kinds.update(tag.kinds)
    return tuple(sorted(kinds))


def _split(text: str, separator: str) -> tuple[str, ...]:
    """Non-empty parts of a text, without surrounding spaces."""
    return tuple(filter(None, map(str.strip, text.split(separator))))

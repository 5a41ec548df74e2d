"""Tags: the names that an image classifier gives to what it sees, each with its kinds ("sorrel" is a horse)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskfree.files.atomic import read_text
from maskfree.text.vocabulary import MAX_CHARACTERS

IMAGENET_TAGS = Path(__file__).parents[1] / "data" / "classes" / "imagenet_tags.txt"
CAPTION_CONCEPTS = IMAGENET_TAGS.with_name("caption_concepts.txt")
"""What captions of Flickr8k name most, synonyms together: things and, above all, what surrounds them."""


@dataclass(frozen=True)
class Tag:
    """One class of a classifier: its names, and the plain words for what kind of thing it is, if any."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]


def read_tags(path: Path) -> tuple[Tag, ...]:
    """Read a tags file: a class a line in the classifier's order, `name, name<TAB>kind/kind`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line has no name, or an overlong one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no tags file {path}")
    tags = []
    for number, line in enumerate(read_text(path).rstrip("\n").splitlines(), 1):
        names, _, kinds = line.partition("\t")
        tag = Tag(_split(names, ","), _split(kinds, "/"))
        if not tag.names or max(map(len, tag.names)) > MAX_CHARACTERS:
            raise ValueError(f"{path}, line {number}: a tag is `name, name<TAB>kind/kind`")
        tags.append(tag)
    return tuple(tags)


def kinds_of(tags: Sequence[Tag]) -> tuple[str, ...]:
    """Return all kinds in the order of the alphabet."""
    return tuple(sorted({kind for tag in tags for kind in tag.kinds}))


def _split(text: str, separator: str) -> tuple[str, ...]:
    return tuple(part for part in map(str.strip, text.split(separator)) if part)

"""The pairs of a shard without their photos: keys, captions, and where each photo lies."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from maskfree.data.entities.index import sample_key
from maskfree.data.examples import (
    BROKEN_SHARD,
    NO_CAPTION,
    NO_PHOTO,
    PHOTO_SUFFIXES,
    UNREADABLE_CAPTIONS,
    UNREADABLE_NAME,
)
from maskfree.data.shards import MAX_CAPTION_BYTES, captions_of, is_dotted, is_text
from maskfree.data.tar_members import Member, tar_members

MAX_WORDS = 1000  # of a caption; what follows is cut off
_MAX_CHARACTERS = 20 * MAX_WORDS  # for what has no spaces
_TEXT_SUFFIXES = ("json", "txt")
_DOTTED = "dotted"  # stands for the suffix of a photo whose name has a dot before it


class CaptionPair(NamedTuple):
    """A photo's place in its shard (SIZE bytes from OFFSET on), and its captions."""

    key: str
    offset: int
    size: int
    captions: tuple[str, ...]


def read_pairs(shard: Path, counts: Counter[str]) -> Iterator[CaptionPair]:
    """Read keys and captions of a shard on disk, in order, and no photo.

    COUNTS gets how many pairs were "read", how many of them were left out by reason ("no photo", "dotted name", "empty
    photo", "unreadable name", "no caption", "unreadable captions"), the "captions" of the others, and the "captions
    cut" to 1,000 words. What is behind a damage of the archive cannot be read, and counts as one "broken shard".

    Raises:
        OSError: the shard cannot be read.
    """
    group: dict[str, Member] = {}
    current = ""
    with shard.open("rb", buffering=0) as file:
        try:
            for member in tar_members(shard):
                key = sample_key(member.name)
                suffix = member.name[len(key) + 1 :].lower()
                if not suffix or key.endswith("/"):
                    continue
                if key != current:
                    yield from _whole(current, group, file, counts)
                    current, group = key, {}
                if suffix in PHOTO_SUFFIXES or suffix in _TEXT_SUFFIXES:
                    group.setdefault(suffix, member)
                elif is_dotted(suffix):
                    group.setdefault(_DOTTED, member)
        except tarfile.TarError:
            counts[BROKEN_SHARD] += 1
        yield from _whole(current, group, file, counts)


def _whole(
    key: str, group: Mapping[str, Member], file: IO[bytes], counts: Counter[str]
) -> Iterator[CaptionPair]:
    """The pair that the files of GROUP make, if they make one."""
    if not key:
        return
    counts["read"] += 1
    if not is_text(key):
        counts[UNREADABLE_NAME] += 1
        return
    photo = next((group[suffix] for suffix in PHOTO_SUFFIXES if suffix in group), None)
    if photo is None:
        counts["dotted name" if _DOTTED in group else NO_PHOTO] += 1
        return
    if not photo.size:
        counts["empty photo"] += 1
        return
    try:
        captions = captions_of(
            {suffix: _text(file, group[suffix]) for suffix in _TEXT_SUFFIXES if suffix in group}
        )
    except (ValueError, TypeError):  # not JSON, not UTF-8, or JSON of another shape
        counts[UNREADABLE_CAPTIONS] += 1
        return
    if not captions:
        counts[NO_CAPTION] += 1
        return
    kept = tuple(map(_cut, captions))
    counts["captions"] += len(captions)
    counts["captions cut"] += sum(
        short is not long for short, long in zip(kept, captions, strict=True)
    )
    yield CaptionPair(key, photo.offset, photo.size, kept)


def _text(file: IO[bytes], member: Member) -> bytes:
    if member.size > MAX_CAPTION_BYTES:
        raise ValueError(f"{member.size} bytes are no caption")
    file.seek(member.offset)
    return file.read(member.size)


def _cut(caption: str) -> str:
    """CAPTION itself, or as much of it as is looked at."""
    if len(caption) < MAX_WORDS:
        return caption
    words = caption[:_MAX_CHARACTERS].split(" ", MAX_WORDS)
    short = " ".join(words[:MAX_WORDS])
    return caption if len(short) == len(caption) else short

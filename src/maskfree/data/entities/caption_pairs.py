"""Read the keys, captions and photo positions of a shard without its photos."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from maskfree.data.captions import MAX_CAPTION_BYTES, captions_of, is_text
from maskfree.data.entities.keys import sample_key
from maskfree.data.examples import (
    BROKEN_SHARD,
    NO_CAPTION,
    NO_PHOTO,
    PHOTO_SUFFIXES,
    UNREADABLE_CAPTIONS,
    UNREADABLE_NAME,
)
from maskfree.data.shards import is_dotted
from maskfree.data.tar_members import Member, tar_members

# Words of a caption that are searched; the rest is cut off.
MAX_WORDS = 1000
# Bound for captions without spaces.
_MAX_CHARACTERS = 20 * MAX_WORDS
_TEXT_SUFFIXES = ("json", "txt")
# Stands for the suffix of a photo whose name has more dots.
_DOTTED = "dotted"


class CaptionPair(NamedTuple):
    """Captions of a photo and the photo's position in its shard."""

    key: str
    """Key of the pair in its shard."""
    offset: int
    """Position of the photo's first byte in the shard."""
    size: int
    """Bytes of the encoded photo."""
    captions: tuple[str, ...]
    """Captions, each cut to 1,000 words."""


def read_pairs(shard: Path, counts: Counter[str]) -> Iterator[CaptionPair]:
    """Read the keys and captions of a shard on disk, in order, without its photos.

    Args:
        shard: Uncompressed tar file.
        counts: Is incremented: pairs "read"; pairs left out by reason ("no photo", "dotted name",
            "empty photo", "unreadable name", "no caption", "unreadable captions"); "captions" of
            the other pairs; "captions cut" to 1,000 words. A damaged archive counts as one "broken
            shard" and ends there.

    Yields:
        Pairs that have a photo and captions.

    Raises:
        OSError: The shard cannot be read.
    """
    group: dict[str, Member] = {}
    current = ""

    with shard.open("rb", buffering=0) as file:
        try:
            for member in tar_members(shard):
                key = sample_key(member.name)
                suffix = member.name[len(key) + 1 :].lower()

                # Skip hidden files and files without a suffix.
                if not suffix or key.endswith("/"):
                    continue

                # The files of one pair follow each other.
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
    """The pair that the files of one key form, if they form one."""
    if not key:
        return

    counts["read"] += 1
    if not is_text(key):
        counts[UNREADABLE_NAME] += 1
        return

    # The order of the suffixes is their priority.
    suffix = next((suffix for suffix in PHOTO_SUFFIXES if suffix in group), None)
    if suffix is None:
        reason = NO_PHOTO
        if _DOTTED in group:
            reason = "dotted name"
        counts[reason] += 1
        return

    photo = group[suffix]
    if not photo.size:
        counts["empty photo"] += 1
        return

    try:
        texts = {}
        for suffix in _TEXT_SUFFIXES:
            if suffix in group:
                texts[suffix] = _text(file, group[suffix])
        captions = captions_of(texts)
    # Not JSON, not UTF-8, or JSON of another structure.
    except (ValueError, TypeError):
        counts[UNREADABLE_CAPTIONS] += 1
        return

    if not captions:
        counts[NO_CAPTION] += 1
        return

    kept = tuple(map(_cut, captions))
    counts["captions"] += len(captions)
    for short, caption in zip(kept, captions, strict=True):
        counts["captions cut"] += short is not caption
    yield CaptionPair(key, photo.offset, photo.size, kept)


def _text(file: IO[bytes], member: Member) -> bytes:
    """Read a text file of a shard."""
    if member.size > MAX_CAPTION_BYTES:
        raise ValueError(f"{member.size} bytes are no caption")
    file.seek(member.offset)
    return file.read(member.size)


def _cut(caption: str) -> str:
    """The caption itself, or its first words if it is too long."""
    # A caption has at least as many characters as words.
    if len(caption) < MAX_WORDS:
        return caption
    words = caption[:_MAX_CHARACTERS].split(" ", MAX_WORDS)
    short = " ".join(words[:MAX_WORDS])
    if len(short) == len(caption):
        return caption
    return short

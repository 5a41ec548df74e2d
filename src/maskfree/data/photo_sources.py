"""Photos of folders or shards as one stream, and the names of files that hold what was prepared of each of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from maskfree.config.extras import need
from maskfree.data.examples import PHOTO_SUFFIXES, Example
from maskfree.data.photo_folders import find_photos, read_photos
from maskfree.data.shards import find_shards, read_shards

_SHARD = ".tar"
_MAX_STEM_BYTES = (
    224  # file systems take 255 for a name; suffixes and names of temporary files need some
)
_KEPT_BYTES = 160  # of a longer one


def file_stem(key: str) -> str:
    """Return the name, without a suffix, of files about the photo with this KEY: a path, or a key within a shard.

    A name that is too long for a file with a suffix is cut, and a hash of all of it put behind.

    >>> file_stem("photos/kitchen.v2.jpg"), file_stem("000017")
    ('kitchen.v2', '000017')
    """
    name = key.rsplit("/", 1)[-1]
    stem, _, suffix = name.rpartition(".")
    whole = stem if stem and suffix.lower() in PHOTO_SUFFIXES else name

    encoded = os.fsencode(whole)
    if len(encoded) <= _MAX_STEM_BYTES:
        return whole
    beginning = encoded[:_KEPT_BYTES].decode(errors="ignore")  # it may end within a character
    return f"{beginning}-{hashlib.blake2b(encoded, digest_size=8).hexdigest()}"


def read_sources(sources: Sequence[str]) -> Iterator[Example]:
    """Read the photos of SOURCES, folders of photos or shards as `find_shards` takes them, in order.

    A photo that cannot be read comes out as an example with a problem; captions need not be there. Sources are looked
    for at once, photos are read as they are asked for.

    Raises:
        FileNotFoundError: a source does not exist or holds no photo.
        ValueError: folders and shards are mixed, there is no source, or what reads shards is not installed.
    """
    if are_shards(sources):
        need("reading shards", "train", modules=("webdataset",))
        return map(_without_captions, read_shards(find_shards(sources)))
    return read_photos(find_photos(sources), sources)


def check_apart(out: Path, sources: Sequence[str]) -> None:
    """Make sure that what is made of photos does not lie among them, where it would be taken for photos.

    Args:
        out: Folder for what is made.
        sources: Folders of photos, or shards, whose folders may hold other files.

    Raises:
        ValueError: `out` is one of the folders, or lies in one.
    """
    if are_shards(sources):
        return
    place = out.resolve()
    for source in sources:
        if place.is_relative_to(Path(source).expanduser().resolve()):
            raise ValueError(
                f"--out {out} lies in the photos' folder {source}: give one outside of it"
            )


def _without_captions(example: Example) -> Example:
    """Leave out captions, and what is wrong with them: a sample with another problem has no photo."""
    return replace(example, captions=(), problem="" if example.photo else example.problem)


def are_shards(sources: Sequence[str]) -> bool:
    """Say whether SOURCES are shards, not folders of photos.

    Raises:
        ValueError: folders and shards are mixed, or there is no source.
    """
    if not sources:
        raise ValueError("no photos were given: name folders of photos, or shards")
    shards = [_is_shards(source) for source in sources]
    if any(shards) and not all(shards):
        raise ValueError(
            f"{sources[shards.index(False)]!r} is a folder of photos, others are shards: take one kind"
        )
    return all(shards)


def _is_shards(source: str) -> bool:
    folder = Path(source).expanduser()
    return not folder.is_dir() or any(folder.glob(f"*{_SHARD}"))

"""Read photos of folders or shards as one stream, and name the files made for each photo."""

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
# File systems allow 255 bytes; suffixes and names of temporary files need some of them.
_MAX_STEM_BYTES = 224
# Bytes kept of a longer stem, before the hash.
_KEPT_BYTES = 160


def file_stem(key: str) -> str:
    """Name the files made for a photo, without a suffix.

    A stem that is too long is cut and a hash of all of it is appended.

    Args:
        key: Path of a photo, or its key in a shard.

    Returns:
        The last part of the key, without a photo's suffix.

    Example:
        >>> file_stem("photos/kitchen.v2.jpg"), file_stem("000017")
        ('kitchen.v2', '000017')
    """
    name = key.rsplit("/", 1)[-1]
    stem, _, suffix = name.rpartition(".")
    # Keys may hold dots, so only the suffix of a photo is removed.
    if not stem or suffix.lower() not in PHOTO_SUFFIXES:
        stem = name

    encoded = os.fsencode(stem)
    if len(encoded) <= _MAX_STEM_BYTES:
        return stem

    # The cut may fall within a character.
    beginning = encoded[:_KEPT_BYTES].decode(errors="ignore")
    return f"{beginning}-{hashlib.blake2b(encoded, digest_size=8).hexdigest()}"


def read_sources(sources: Sequence[str]) -> Iterator[Example]:
    """Read photos of folders or shards, in order.

    A photo that cannot be read becomes an example with a problem; captions are not needed. Sources
    are searched at once, and photos are read on demand.

    Args:
        sources: Folders of photos, or shards as `find_shards` takes them.

    Returns:
        Examples without captions.

    Raises:
        FileNotFoundError: A source does not exist or holds no photo.
        ValueError: Folders and shards are mixed, there is no source, or the package that reads
            shards is not installed.
    """
    if are_shards(sources):
        need("reading shards", "train", modules=("webdataset",))
        return map(_without_captions, read_shards(find_shards(sources)))
    return read_photos(find_photos(sources), sources)


def check_apart(out: Path, sources: Sequence[str]) -> None:
    """Check that an output folder does not lie among the photos.

    Its files would be taken for photos by a later run.

    Args:
        out: Output folder.
        sources: Folders of photos, or shards; the folders of shards may hold other files.

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
    """Drop the captions and any problem with them; a sample with another problem has no photo."""
    if example.photo:
        return replace(example, captions=(), problem="")
    return replace(example, captions=())


def are_shards(sources: Sequence[str]) -> bool:
    """Tell whether sources are shards or folders of photos.

    Args:
        sources: Paths, globs or URLs.

    Returns:
        True for shards.

    Raises:
        ValueError: Folders and shards are mixed, or there is no source.
    """
    if not sources:
        raise ValueError("no photos were given: name folders of photos, or shards")

    shards = list(map(_is_shards, sources))
    if any(shards) and not all(shards):
        raise ValueError(
            f"{sources[shards.index(False)]!r} is a folder of photos, others are shards: "
            "take one kind"
        )
    return all(shards)


def _is_shards(source: str) -> bool:
    """Whether a source is a shard or a folder of shards."""
    folder = Path(source).expanduser()
    return not folder.is_dir() or any(folder.glob(f"*{_SHARD}"))


def check_stems(photos: Sequence[str]) -> None:
    """Check that no two photos share a stem, which names the files made for them.

    Args:
        photos: Paths of the photos.

    Raises:
        ValueError: Two have the same stem.
    """
    known: dict[str, str] = {}
    for photo in photos:
        stem = file_stem(photo).casefold()
        if stem in known:
            raise ValueError(
                f"{known[stem]} and {photo} have one name, {stem}: "
                "maps of photos are told apart by it"
            )
        known[stem] = photo

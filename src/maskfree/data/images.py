"""Unlabelled folders of photos, for losses that need no captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from maskfree.data.examples import PHOTO_SUFFIXES, Example


def find_photos(folders: Sequence[str]) -> tuple[str, ...]:
    """List the photos under FOLDERS at any depth, by suffix, in order.

    Raises:
        FileNotFoundError: a folder does not exist or holds no photo.
    """
    photos: list[str] = []
    for folder in folders:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {folder!r}")
        found = sorted(
            str(p) for p in root.rglob("*") if p.suffix.lower().lstrip(".") in PHOTO_SUFFIXES and p.is_file()
        )
        if not found:
            raise FileNotFoundError(f"folder {folder!r} holds no photo ({', '.join(PHOTO_SUFFIXES)})")
        photos.extend(found)
    return tuple(photos)


def read_photos(photos: Sequence[str]) -> Iterator[Example]:
    """Make an example without captions of each photo, whose key is its path."""
    for photo in photos:
        path = Path(photo)
        yield Example(photo, str(path.parent), path)

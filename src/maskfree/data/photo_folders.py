"""Folders of photos: which of their files are photos, and photos without labels, for losses that need no captions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from maskfree.data.examples import PHOTO_SUFFIXES, Example

log = logging.getLogger(__name__)

_NAMED = 3  # of files that are left out


def only_photos(files: Iterable[Path], folder: Path) -> list[Path]:
    """Return those FILES of a folder that are photos, in order; how many others there are is logged.

    Args:
        files: Files and folders; folders are passed over, and a hidden file is no photo.
        folder: Where they lie, at any depth.

    Returns:
        The photos, sorted by their paths.
    """
    photos, others = [], []
    for path in sorted(files, key=str):
        if path.is_file():
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            known = path.suffix.lower().lstrip(".") in PHOTO_SUFFIXES
            (photos if known and not hidden else others).append(path)
    if others:
        named = ", ".join(path.name for path in others[:_NAMED]) + (
            ", ..." if len(others) > _NAMED else ""
        )
        _say(
            f"{folder}: {len(others)} of {len(photos) + len(others)} files are no photos and are left out ({named})"
        )
    return photos


def find_photos(folders: Sequence[str]) -> tuple[str, ...]:
    """List the photos under FOLDERS at any depth, by suffix, in order; what else lies there is counted in the log.

    Raises:
        FileNotFoundError: a folder does not exist or holds no photo.
    """
    photos: list[str] = []
    for folder in folders:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {folder!r}")
        found = only_photos(root.rglob("*"), root)
        if not found:
            raise FileNotFoundError(
                f"folder {folder!r} holds no photo ({', '.join(PHOTO_SUFFIXES)})"
            )
        photos.extend(map(str, found))
    return tuple(photos)


def read_photos(photos: Sequence[str], folders: Sequence[str]) -> Iterator[Example]:
    """Make an example without captions of each photo.

    Its key is its path under the folder that it was found in, so that it stays the same wherever the folder lies. Of
    several folders it begins with the folder's number, so that no two photos share one.

    Args:
        photos: Paths of photos, some of those that `find_photos` found.
        folders: The folders that were given to it.
    """
    roots = [Path(folder).expanduser() for folder in folders]
    for photo in photos:
        path = Path(photo)
        number, root = next(
            (pair for pair in enumerate(roots) if path.is_relative_to(pair[1])), (0, path.parent)
        )
        name = path.relative_to(root).as_posix()
        yield Example(name if len(roots) == 1 else f"{number}/{name}", str(path.parent), path)


@cache
def _say(message: str) -> None:
    """Log a message once, however often a folder is looked through."""
    log.warning("%s", message)

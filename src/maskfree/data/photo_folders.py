"""Find and read the photos of folders, without captions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from maskfree.data.examples import PHOTO_SUFFIXES, Example

log = logging.getLogger(__name__)

# Most left-out files that a warning names.
_NAMED = 3


def only_photos(files: Iterable[Path], folder: Path) -> list[Path]:
    """Select the photos among the files of a folder, and log how many other files there are.

    Args:
        files: Files and folders; folders are skipped, and hidden files are no photos.
        folder: Folder that holds them, at any depth.

    Returns:
        The photos, sorted by path.
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
    """Find the photos under some folders at any depth, by suffix.

    Other files are counted in the log.

    Args:
        folders: Folders to search.

    Returns:
        Paths of the photos, sorted within each folder.

    Raises:
        FileNotFoundError: A folder does not exist or holds no photo.
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

    The key of an example is its path under its folder, so that it does not depend on where the
    folder lies. With several folders it begins with the folder's number, so that keys are unique.

    Args:
        photos: Paths that `find_photos` returned.
        folders: The folders that were given to `find_photos`.

    Yields:
        Examples that hold the paths of photos.
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
    """Log a message only once, however often a folder is searched."""
    log.warning("%s", message)

"""Find and read the photos of folders, without captions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from maskfree.data.examples import PHOTO_SUFFIXES, Example

log = logging.getLogger(__name__)

# Most left-out files that a warning names.
_MAX_NAMES = 3


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
        if not path.is_file():
            continue

        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower().lstrip(".") in PHOTO_SUFFIXES and not is_hidden:
            photos.append(path)
        else:
            others.append(path)

    if others:
        names = ", ".join(path.name for path in others[:_MAX_NAMES])
        if len(others) > _MAX_NAMES:
            names += ", ..."
        _warn_once(
            f"{folder}: {len(others)} of {len(photos) + len(others)} files are no photos "
            f"and are left out ({names})"
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
        yield Example(_key(path, roots), str(path.parent), path)


def _key(path: Path, roots: Sequence[Path]) -> str:
    """Path of a photo under its folder, with the folder's number if there are several."""
    for number, root in enumerate(roots):
        if path.is_relative_to(root):
            key = path.relative_to(root).as_posix()
            if len(roots) > 1:
                key = f"{number}/{key}"
            return key
    return path.name


@cache
def _warn_once(message: str) -> None:
    """Log a message only once, however often a folder is searched."""
    log.warning("%s", message)

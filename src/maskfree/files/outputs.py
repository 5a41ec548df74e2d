"""What a run may write: nothing that it reads, nothing twice, and nothing that somebody else made."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path

from PIL import PngImagePlugin

from maskfree.files.atomic import read_json

RESULT_SUFFIXES = (
    ".png",
    ".overlay.png",
    ".json",
)  # of a segmented photo: label map, picture, record
_RECORDS = (  # keys by which the record of a result is known: of segment, track and retrieve
    {"photo", "words", "areas"},
    {"photo", "words", "tracking"},
    {"word", "search", "hits"},
)
CLIP_MARK = b"Software: maskfree"  # in the metadata of an animated picture or a video
_PNG_MARK = ("Software", "maskfree")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_MARK_WITHIN = 128  # bytes: it is the first part of the PNG after the header
_CLIP_MARK_WITHIN = 4096  # bytes of the start or the end


class Outputs:
    """The files that a run reads and those that it will write, by every name that each of them may have.

    Two paths are the same if they lead to one file through links, other spellings or hard links, or if they differ
    only in what some file systems do not tell apart: capital letters and the composition of accents.
    """

    def __init__(self, inputs: Iterable[str | Path] = ()):
        """Take note of what the run reads.

        Args:
            inputs: Files and folders; those that do not exist do no harm.
        """
        self._owners: dict[Hashable, Path] = {}
        self._inputs: list[tuple[str, Path]] = []
        for path in map(Path, inputs):
            self._inputs.append((_real(path), path))
            self._note(path)

    def clash(self, path: Path) -> Path | None:
        """Return the input or planned output that `path` would overwrite, as it was given; None if there is none.

        Args:
            path: A file that may be written.
        """
        return next((self._owners[key] for key in _keys(path) if key in self._owners), None)

    def add(self, *paths: Path) -> None:
        """Plan to write files.

        Args:
            paths: The files.

        Raises:
            ValueError: One of them is an input, or is planned already.
        """
        for path in paths:
            if (other := self.clash(path)) is not None:
                raise ValueError(
                    f"{path} would overwrite {other}, which this run needs: give another place to write to"
                )
            self._note(path)

    def add_folder(self, folder: Path) -> None:
        """Plan to write files into a folder whose names are not known yet, or to replace it as a whole.

        Args:
            folder: The folder.

        Raises:
            ValueError: It is an input, or holds one.
        """
        real = _real(folder)
        for other, path in self._inputs:
            if other == real or other.startswith(real.rstrip(os.sep) + os.sep):
                raise ValueError(
                    f"{folder} holds what this run reads, {path}: give another folder to write to"
                )
        self.add(folder)

    def add_stem(
        self, folder: Path, stem: str, suffixes: Sequence[str], avoid: Iterable[str] = ()
    ) -> str:
        """Plan to write files that share a stem, with a number behind it where it is taken.

        A file of somebody else, which no run of maskfree wrote, is not overwritten either.

        Args:
            folder: Where they go.
            stem: The wanted one.
            suffixes: What follows it in each file's name.
            avoid: Stems, in small letters, that a number must not lead to.

        Returns:
            The stem, or the first of STEM-2, STEM-3, ... with which all files are free.
        """
        reserved = set(avoid)
        for chosen in _numbered(stem):
            paths = [folder / f"{chosen}{suffix}" for suffix in suffixes]
            if chosen != stem and chosen.casefold() in reserved:
                continue
            if all(self.clash(path) is None and is_replaceable(path) for path in paths):
                break
        self.add(*paths)
        return chosen

    def _note(self, path: Path) -> None:
        for key in _keys(path):
            self._owners.setdefault(key, path)


def check_run_folders(out: Path, names: Iterable[str], inputs: Iterable[str | Path | None]) -> None:
    """Make sure that the folders within that of a run hold nothing that the run reads from elsewhere.

    Args:
        out: The run's folder.
        names: Of the folders that the run writes.
        inputs: What it is given to read: files, folders, and names of models, which are no paths; "" and None are
            nothing.

    Raises:
        ValueError: One of the folders is an input, or holds one.
    """
    outputs = Outputs(each for each in inputs if each)
    for name in names:
        outputs.add_folder(out / name)


def is_replaceable(path: Path) -> bool:
    """Say whether a result may be written to `path`: there is nothing, or a result of an earlier run.

    Args:
        path: A file to be: PNG, JSON, animated picture or video.
    """
    if not os.path.lexists(path):
        return True
    try:
        if path.suffix == ".json":
            return _is_record(path)
        return _is_marked(path) if path.suffix == ".png" else _is_marked_clip(path)
    except (OSError, ValueError):
        return False


def check_replaceable(*paths: Path) -> None:
    """Make sure that results may be written.

    Args:
        paths: Files to be, as for `is_replaceable`.

    Raises:
        FileExistsError: One of them is there, and no run of maskfree wrote it.
    """
    for path in paths:
        if not is_replaceable(path):
            raise FileExistsError(
                f"{path} exists and is no result of maskfree: it is not overwritten"
            )


def png_mark() -> PngImagePlugin.PngInfo:
    """Return what a PNG is saved with (`pnginfo`), so that a later run knows it for a result."""
    info = PngImagePlugin.PngInfo()
    info.add_text(*_PNG_MARK)
    return info


def _is_marked(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(_MARK_WITHIN)
    return start.startswith(_PNG_START) and "\0".join(_PNG_MARK).encode() in start


def _is_marked_clip(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(_CLIP_MARK_WITHIN)
        file.seek(max(0, path.stat().st_size - _CLIP_MARK_WITHIN))
        return CLIP_MARK in start or CLIP_MARK in file.read()


def _is_record(path: Path) -> bool:
    content = read_json(path)
    return isinstance(content, dict) and any(keys <= content.keys() for keys in _RECORDS)


def _keys(path: Path) -> Iterator[Hashable]:
    """What two paths share if they are the same file, now or on a file system that knows no capital letters."""
    yield unicodedata.normalize("NFC", _real(path)).casefold()
    try:
        status = path.stat()
    except OSError:
        return
    yield status.st_dev, status.st_ino


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1

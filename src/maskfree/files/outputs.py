"""Overwrite checks: a run replaces neither its inputs, its own outputs, nor files of others."""

from __future__ import annotations

import os
import unicodedata
import zipfile
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import PngImagePlugin

from maskfree.files.atomic import read_json

RESULT_SUFFIXES = (
    ".png",
    ".overlay.png",
    ".json",
)
"""Suffixes of the results of a segmented photo: label map, overlay, record."""

SCORES_SUFFIX = ".scores.npz"
"""Suffix of the score map of a segmented photo, which is written on request."""

# Keys that identify the JSON records of `segment`, `track` and `search`.
_RECORDS = (
    {"photo", "words", "areas"},
    {"photo", "words", "tracking"},
    {"word", "search", "hits"},
)

CLIP_MARK = b"Software: maskfree"
"""Mark in the metadata of animated pictures and videos that maskfree wrote."""

_SCORES_MARK = "software"
_PNG_MARK = ("Software", "maskfree")
_PNG_START = b"\x89PNG\r\n\x1a\n"
# Bytes of a PNG that are searched: the mark is the first chunk after the header.
_MARK_WITHIN = 128
# Bytes at the start and at the end of an animated picture or video that are searched.
_CLIP_MARK_WITHIN = 4096


class Outputs:
    """Registry of the files that a run reads and will write, to detect overwriting.

    Two paths count as the same if they lead to one file through symbolic links, other spellings or
    hard links, or if they differ only in ways that some file systems ignore: letter case and
    Unicode normalization.
    """

    def __init__(self, inputs: Iterable[str | Path] = ()):
        """Register the inputs of the run.

        Args:
            inputs: Files and folders that the run reads; they need not exist.
        """
        self._owners: dict[Hashable, Path] = {}
        self._inputs: list[tuple[str, Path]] = []

        for path in map(Path, inputs):
            self._inputs.append((_real(path), path))
            self._note(path)

    def clash(self, path: Path) -> Path | None:
        """Find the input or planned output that writing a file would overwrite.

        Args:
            path: File that may be written.

        Returns:
            The registered path as it was given; None if there is none.
        """
        for key in _keys(path):
            if key in self._owners:
                return self._owners[key]
        return None

    def add(self, *paths: Path) -> None:
        """Register files that the run will write.

        Args:
            paths: Output files.

        Raises:
            ValueError: One of them is an input, or is already registered.
        """
        for path in paths:
            if (other := self.clash(path)) is not None:
                raise ValueError(
                    f"{path} would overwrite {other}, which this run needs: "
                    "give another place to write to"
                )
            self._note(path)

    def add_folder(self, folder: Path) -> None:
        """Register a folder that is replaced, or that gets files whose names are not yet known.

        Args:
            folder: Output folder.

        Raises:
            ValueError: The folder is an input, or contains one.
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
        """Register files that share a stem, numbering the stem if it is already taken.

        Files that no run of maskfree wrote are not overwritten either.

        Args:
            folder: Output folder.
            stem: Preferred stem of the file names.
            suffixes: Suffix of each file, appended to the stem.
            avoid: Stems, in lower case, that a numbered stem must not equal.

        Returns:
            The stem, or the first of "stem-2", "stem-3", ... with which no file is taken.
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
        """Register a path; the first owner of a name keeps it."""
        for key in _keys(path):
            self._owners.setdefault(key, path)


def check_run_folders(out: Path, names: Iterable[str], inputs: Iterable[str | Path | None]) -> None:
    """Check that no output folder of a run is or contains an input of the run.

    Args:
        out: Folder of the run.
        names: Names of the subfolders that the run writes.
        inputs: Inputs of the run: files, folders, and model names, which are not paths; "" and
            None are ignored.

    Raises:
        ValueError: One of the folders is an input, or contains one.
    """
    outputs = Outputs(filter(None, inputs))
    for name in names:
        outputs.add_folder(out / name)


def is_replaceable(path: Path) -> bool:
    """Whether a path is free or holds a result of maskfree, so that it may be written.

    Args:
        path: Path of a PNG, JSON, npz, animated picture or video.

    Returns:
        True if nothing exists there, or a result of an earlier run.
    """
    if not os.path.lexists(path):
        return True

    try:
        if path.suffix == ".json":
            return _is_record(path)
        if path.suffix == ".png":
            return _is_marked(path)
        if path.suffix == ".npz":
            return _is_marked_archive(path)
        return _is_marked_clip(path)
    except (OSError, ValueError):
        return False


def check_replaceable(*paths: Path) -> None:
    """Check that results may be written.

    Args:
        paths: Output files, of the kinds of `is_replaceable`.

    Raises:
        FileExistsError: One of them exists and was not written by maskfree.
    """
    for path in paths:
        if not is_replaceable(path):
            raise FileExistsError(
                f"{path} exists and is no result of maskfree: it is not overwritten"
            )


def png_mark() -> PngImagePlugin.PngInfo:
    """Metadata that marks a PNG as a result of maskfree.

    Returns:
        Value for the `pnginfo` argument of Pillow's `Image.save`.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text(*_PNG_MARK)
    return info


def scores_mark() -> dict[str, Any]:
    """Array that marks an npz file as a result of maskfree.

    Returns:
        Further argument of `numpy.savez_compressed`.
    """
    return {_SCORES_MARK: np.array("maskfree")}


def _is_marked_archive(path: Path) -> bool:
    """Whether an npz file has the array of `scores_mark`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{_SCORES_MARK}.npy" in archive.namelist()
    except zipfile.BadZipFile:
        return False


def _is_marked(path: Path) -> bool:
    """Whether a file is a PNG with the mark of `png_mark`."""
    with path.open("rb") as file:
        start = file.read(_MARK_WITHIN)
    return start.startswith(_PNG_START) and "\0".join(_PNG_MARK).encode() in start


def _is_marked_clip(path: Path) -> bool:
    """Whether an animated picture or video has the mark `CLIP_MARK` near its start or end."""
    with path.open("rb") as file:
        # The place of the metadata depends on the format.
        start = file.read(_CLIP_MARK_WITHIN)
        file.seek(max(0, path.stat().st_size - _CLIP_MARK_WITHIN))
        return CLIP_MARK in start or CLIP_MARK in file.read()


def _is_record(path: Path) -> bool:
    """Whether a JSON file is the record of a result."""
    content = read_json(path)
    return isinstance(content, dict) and any(keys <= content.keys() for keys in _RECORDS)


def _keys(path: Path) -> Iterator[Hashable]:
    """Keys of a path; two paths that share one are, or on another file system may be, one file."""
    # macOS and Windows ignore letter case, macOS also the composition of accents.
    yield unicodedata.normalize("NFC", _real(path)).casefold()

    # Hard links have different paths but one inode.
    try:
        status = path.stat()
    except OSError:
        return

    yield status.st_dev, status.st_ino


def _real(path: Path) -> str:
    """Absolute path with symbolic links resolved."""
    return os.path.realpath(path)


def _numbered(stem: str) -> Iterator[str]:
    """The stem, then "stem-2", "stem-3" and so on without end."""
    yield stem

    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1

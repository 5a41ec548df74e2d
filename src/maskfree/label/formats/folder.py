"""The folder of a written data set: whole or not there, and never over the work of others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskfree.files.leftovers import replace_folder, unfinished_folder, whole, writing
from maskfree.label.formats.json_stream import text_file

_RECORD = ".maskfree-written"
"""File in each folder that lists what maskfree wrote there."""

Entry = tuple[str, int, int]
"""A file of a folder: relative path, bytes, and time of its last change in nanoseconds."""


@contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """Context manager that writes a folder and moves it into place at the end.

    Args:
        out: Final folder. One that maskfree wrote, and that nobody changed since, is replaced.

    Yields:
        The unfinished folder beside it.

    Raises:
        FileExistsError: The folder holds files that maskfree did not write, or that were changed.
        OSError: The folder cannot be written.
    """
    # The folder that a symbolic link names is replaced, not the link.
    out = Path(os.path.realpath(out))
    check_unchanged(out)

    with writing(out), unfinished_folder(out.parent) as unfinished:
        yield unfinished
        _write_record(unfinished)

        # Once more: writing may have taken hours.
        check_unchanged(out)
        replace_folder(unfinished, out)


def check_unchanged(out: Path) -> None:
    """Check that a folder is free or holds only what maskfree wrote there.

    Args:
        out: Folder of a data set; it need not exist.

    Raises:
        FileExistsError: It holds other files, or files that were changed since; a file that also
            has another name, as a linked photo, is not lost and does not count.
    """
    out = whole(out)
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is no folder: give another place to write to")

    record = out / _RECORD
    if not record.is_file():
        if any(out.iterdir()):
            raise FileExistsError(f"{out} has files that are not of maskfree: give another folder")
        return

    with record.open(encoding="utf-8", newline="\n") as file:
        changed = _first_changed(_entries(out), map(_parsed, file))
    if changed is not None:
        raise FileExistsError(
            f"{out / changed} was not written by maskfree, or was changed since: "
            "move it away, or give another folder"
        )


def _write_record(folder: Path) -> None:
    """List the files of a folder, in the order of `_entries`."""
    with text_file(folder / _RECORD) as file:
        for path, size, changed in _entries(folder):
            file.write(f"{size} {changed} {path}\n")


def _parsed(line: str) -> Entry:
    """Read a line of the record."""
    size, changed, path = line.rstrip("\n").split(" ", 2)
    return path, int(size), int(changed)


def _entries(folder: Path) -> Iterator[Entry]:
    """Files below a folder that have no other name, in the order of the parts of their paths."""
    for path in _files(folder, ""):
        status = (folder / path).lstat()
        if status.st_nlink == 1 and path != _RECORD:
            yield path, status.st_size, status.st_mtime_ns


def _files(folder: Path, prefix: str) -> Iterator[str]:
    """Relative paths of the files below a folder, sorted within each folder."""
    with os.scandir(folder) as found:
        entries = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in found)

    for name, is_dir in entries:
        if is_dir:
            yield from _files(folder / name, f"{prefix}{name}/")
        else:
            yield prefix + name


def _first_changed(found: Iterator[Entry], recorded: Iterator[Entry]) -> str | None:
    """First file that is not recorded as it is; both iterators have the same order."""
    expected = next(recorded, None)
    for entry in found:
        parts = entry[0].split("/")
        # Recorded files that are gone are no loss.
        while expected is not None and expected[0].split("/") < parts:
            expected = next(recorded, None)
        if entry != expected:
            return entry[0]
    return None

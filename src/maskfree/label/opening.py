"""Reading the photos of a manifest: their state on the disk, and their pixels."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from PIL import Image

from maskfree.data.photo import read_photo
from maskfree.label.photo_row import PhotoRow

# Largest member of a shard, which is read into memory.
_MAX_MEMBER_BYTES = 2**28


@dataclass(frozen=True)
class OpenedRow:
    """A photo that was read, or why it could not be."""

    row: PhotoRow
    """Its row in the manifest."""
    photo: Image.Image | None
    """The upright RGB photo."""
    problem: str
    """Why it could not be read, in one line; empty if it was."""
    content: bytes
    """The encoded photo if it is a member of a shard."""
    sha256: str
    """Hash of the encoded photo."""
    seconds: float
    """Time that reading took."""

    @property
    def pixels(self) -> int:
        """Number of pixels of the photo.

        Returns:
            The number; 0 for one that could not be read.
        """
        return self.photo.width * self.photo.height if self.photo else 0


def state_of(path: Path) -> tuple[int | None, int | None]:
    """Look at a file without reading it.

    Args:
        path: A photo or shard.

    Returns:
        Its size in bytes and the time of its last change in nanoseconds; None if it is missing or
        no file.
    """
    try:
        found = path.stat()
    except OSError:
        return None, None
    if not stat.S_ISREG(found.st_mode):
        return None, None
    return found.st_size, found.st_mtime_ns


def file_sha256(path: Path, offset: int = 0, size: int | None = None) -> str:
    """Hash a file, or the member of a shard.

    Args:
        path: The file.
        offset: Position of the member.
        size: Size of the member; None for a file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        if size is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(os.pread(file.fileno(), size, offset)).hexdigest()


def open_row(row: PhotoRow) -> OpenedRow:
    """Read a photo.

    Args:
        row: Its row.

    Returns:
        The photo, or why it cannot be read.
    """
    began = perf_counter()
    photo, problem, content, sha256 = None, "", b"", ""
    try:
        if row.member:
            content = _member(row)
            sha256 = hashlib.sha256(content).hexdigest()
            photo = _named(content, f"{row.path}::{row.member}")
        else:
            photo = read_photo(row.path)
            sha256 = file_sha256(row.path)
    except (ValueError, OSError) as error:
        photo, problem = None, str(error)
    return OpenedRow(row, photo, problem, content, sha256, perf_counter() - began)


def _named(content: bytes, name: str) -> Image.Image:
    """Read an encoded photo; its name is put before what is wrong with it."""
    try:
        return read_photo(content)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _member(row: PhotoRow) -> bytes:
    """Encoded photo of a shard's member."""
    size = row.bytes or 0
    if size > _MAX_MEMBER_BYTES:
        raise ValueError(f"{row.source} is over {_MAX_MEMBER_BYTES:,} bytes")

    with row.path.open("rb") as shard:
        content = os.pread(shard.fileno(), size, row.offset)
    if len(content) < size:
        raise ValueError(f"{row.source}: the shard ends within it")
    return content

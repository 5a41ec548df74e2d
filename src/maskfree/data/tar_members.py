"""Where the files of a tar archive lie: its headers are read one after the other, what is between is passed over."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK = 512  # bytes of a header; files are padded to a multiple
_REGULAR = b"0\0"
_MAX_RECORD_BYTES = 2**20  # of a pax record
_PASSED_OVER = b"123456"  # links, devices, folders
_OF_NEXT = b"x"  # pax: a record for the next header
_MATTERS = (
    b" path=",
    b" size=",
    b" GNU.sparse",
)  # what such a record can say that is not in the header


class Member(NamedTuple):
    """A file in an archive: its name, and where its SIZE bytes start."""

    name: str
    offset: int
    size: int


class _Unusual(Exception):  # noqa: N818 - no error: tarfile reads it
    """A header that is not of the plain kind."""


def tar_members(path: Path) -> Iterator[Member]:
    """List the regular files of an archive on disk, in order.

    The headers that shards are made of are read here, some eight times as fast as by `tarfile`; at the first one of
    another kind (long names, sparse files, damage) `tarfile` takes over.

    Raises:
        tarfile.TarError: the archive is damaged; what comes before the damage is listed first.
        OSError: it cannot be read.
    """
    position = 0
    with path.open("rb", buffering=0) as file:
        _read_at_random(file.fileno())
        total = os.fstat(file.fileno()).st_size
        try:
            while header := _header(file.fileno(), position):
                member, position = header
                if member:
                    if member.offset + member.size > total:
                        raise tarfile.ReadError("unexpected end of data")
                    yield member
            return
        except _Unusual:
            pass
    yield from _by_tarfile(path, position)


def _by_tarfile(path: Path, position: int) -> Iterator[Member]:
    """The files whose headers stand at POSITION or later, read by the library."""
    try:
        with tarfile.open(
            path, "r:"
        ) as archive:  # not compressed: nobody finds a photo in such an archive again
            for info in archive:
                if info.isreg() and not info.issparse() and info.offset_data >= position + BLOCK:
                    yield Member(info.name, info.offset_data, info.size)
            with path.open("rb", buffering=0) as file:  # it stops at a damage as at the end
                if os.pread(file.fileno(), BLOCK, archive.offset).strip(b"\0"):
                    raise tarfile.ReadError("what follows is no header")
    except tarfile.TarError:
        raise
    except Exception as error:  # places and sizes beyond all bounds, names that are no text
        raise tarfile.ReadError(f"what follows is no header: {error}") from error


def member_at(descriptor: int, offset: int) -> tuple[str, int]:
    """Return name (its first 100 characters at least) and size of the file whose bytes start at OFFSET.

    Raises:
        ValueError: no header stands before it.
    """
    header = os.pread(descriptor, BLOCK, offset - BLOCK) if offset >= BLOCK else b""
    try:
        return _name(header), _size(header)
    except _Unusual as error:
        raise ValueError("there is no file in the archive at this place") from error


def _header(descriptor: int, position: int) -> tuple[Member | None, int] | None:
    """The member at POSITION, None for what is no file, and the position of the next one; None at the end."""
    header = os.pread(descriptor, BLOCK, position)
    if not header.strip(b"\0"):
        return None
    kind, size = header[156:157], _size(header)
    start = position + BLOCK
    following = start + -(-size // BLOCK) * BLOCK
    if kind in _REGULAR:
        return Member(_name(header), start, size), following
    if kind == _OF_NEXT:
        if size > _MAX_RECORD_BYTES:
            raise _Unusual
        record = os.pread(descriptor, size, start)
        if any(word in record for word in _MATTERS):
            raise _Unusual
        return None, following
    if kind in _PASSED_OVER:
        return None, start
    raise _Unusual


def _name(header: bytes) -> str:
    name, prefix = header[:100].rstrip(b"\0"), b""
    if header[257:263] == b"ustar\0":  # GNU's own kind has times where the prefix is
        prefix = header[345:500].split(b"\0", 1)[0]
    try:
        return (prefix + b"/" + name if prefix else name).split(b"\0", 1)[0].decode()
    except UnicodeDecodeError as error:
        raise _Unusual from error


def _size(header: bytes) -> int:
    if len(header) < BLOCK or header[257:262] != b"ustar":
        raise _Unusual
    try:
        size = int(header[124:136].strip(b" \0"), 8)
    except ValueError as error:  # damage, or the binary form for 8 GiB and more
        raise _Unusual from error
    if size < 0:
        raise _Unusual
    return size


def _read_at_random(descriptor: int) -> None:
    """Tell the system not to read ahead, where it can be told: photos are passed over."""
    if advise := getattr(os, "posix_fadvise", None):
        advise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

"""Files at http(s), s3 and gs addresses: read as a stream or by position, again after an error."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

# Waits between the attempts, in seconds; servers of shards drop some connections of a long run.
_WAITS_S = (1.0, 2.0, 4.0, 8.0)
_TIMEOUT_S = 60
_HTTP = ("http", "https")
# Answers of a server after which another attempt may help; others, as 404, are final.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_PARTIAL = 206

SCHEMES = (*_HTTP, "s3", "gs")
"""Schemes of addresses that are read."""
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}

Made = TypeVar("Made")


def is_remote(name: str) -> bool:
    """Tell whether a name is an address instead of a path.

    Args:
        name: Path or address.

    Returns:
        True for an address of one of `SCHEMES`.
    """
    return name.partition("://")[0].lower() in SCHEMES and "://" in name


def file_name(name: str) -> str:
    """Last part of a path or an address, without what follows a question mark.

    Args:
        name: Path or address.

    Returns:
        The file's name.

    Example:
        >>> file_name("https://a.org/b/c.tar?sig=x/y"), file_name("b/c.tar")
        ('c.tar', 'c.tar')
    """
    if is_remote(name):
        name = urlsplit(name).path
    return PurePosixPath(name).name


def check_readable(name: str) -> None:
    """Check that the package that reads an address is installed.

    Args:
        name: Address of one of `SCHEMES`.

    Raises:
        ValueError: It is not.
    """
    scheme = name.partition("://")[0].lower()
    if scheme in _HTTP:
        return

    try:
        _filesystem(name)
    except ImportError as error:
        package = _PACKAGES[scheme]
        raise ValueError(f"{name!r} needs the package {package}: pip install {package}") from error


class RemoteFile:
    """A stream that goes on where it was after a lost connection."""

    def __init__(self, name: str):
        """Store the address; reading opens it.

        Args:
            name: Address of one of `SCHEMES`.
        """
        self._name, self._position = name, 0
        self._open: Any = None
        self._total: int | None = None

    def read(self, size: int) -> bytes:
        """Read some bytes.

        Args:
            size: Largest number of bytes to read.

        Returns:
            The bytes; empty at the end.

        Raises:
            OSError: The file cannot be read, also after some attempts.
        """

        def attempt() -> bytes:
            """Read once."""
            try:
                if self._open is None:
                    self._open, self._total = _opened(self._name, self._position)
                content = self._open.read(size)
                # A closed connection looks like the end.
                if not content and self._total is not None and self._position < self._total:
                    raise ConnectionError("the connection ended too early")
            except (OSError, HTTPException):
                self.close()
                raise
            self._position += len(content)
            return content

        return _again(attempt)

    def close(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.close()
        self._open = None


def read_at(name: str, start: int, size: int) -> bytes:
    """Read some bytes of a file at an address.

    Args:
        name: Address of one of `SCHEMES`.
        start: Position of the first byte.
        size: Number of bytes.

    Returns:
        The bytes; fewer at the end of the file.

    Raises:
        OSError: The file cannot be read, also after some attempts.
        ValueError: The server gives whole files only.
    """
    if not name.lower().startswith(_HTTP):
        filesystem, path = _filesystem(name)
        return _again(lambda: filesystem.cat_file(path, start=start, end=start + size))

    def attempt() -> bytes:
        """Read once."""
        with _request(name, f"bytes={start}-{start + size - 1}") as answer:
            if answer.status != _PARTIAL:
                raise ValueError(
                    f"the server of {name!r} gives whole files only: partner photos lie within "
                    "shards, so copy the shards to a disk or another server"
                )
            return answer.read()

    return _again(attempt)


def size_of(name: str) -> int:
    """Ask for the size of a file at an address.

    Args:
        name: Address of one of `SCHEMES`.

    Returns:
        Number of bytes.

    Raises:
        OSError: The file cannot be read, also after some attempts.
        ValueError: The server does not tell the size.
    """
    if not name.lower().startswith(_HTTP):
        filesystem, path = _filesystem(name)
        return _again(lambda: int(filesystem.size(path)))

    def attempt() -> int | None:
        """Ask once."""
        opened, total = _opened(name, 0)
        opened.close()
        return total

    total = _again(attempt)
    if total is None:
        raise ValueError(f"the server of {name!r} does not tell its size")
    return total


def _opened(name: str, position: int) -> tuple[Any, int | None]:
    """Open a file at a position; also return its whole size, if it is known."""
    if not name.lower().startswith(_HTTP):
        filesystem, path = _filesystem(name)
        file = filesystem.open(path, "rb")
        file.seek(position)
        return file, filesystem.size(path)

    answer = _request(name, f"bytes={position}-")
    # Without ranges the file comes from its start.
    if answer.status != _PARTIAL:
        total = answer.length
        answer.read(position)
        return answer, total
    return answer, int(answer.headers["Content-Range"].rpartition("/")[2])


def _request(name: str, part: str) -> Any:
    """Ask a web server for a part of a file."""
    # Some servers refuse the name that urllib gives itself.
    headers = {"User-Agent": "maskfree", "Range": part}
    return urllib.request.urlopen(urllib.request.Request(name, headers=headers), timeout=_TIMEOUT_S)


def _filesystem(name: str) -> tuple[Any, str]:
    """File system of an address, and the path in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(name)


def _again(attempt: Callable[[], Made]) -> Made:
    """Make attempts until one succeeds; the last error is raised."""
    for wait in _WAITS_S:
        try:
            return attempt()
        except (OSError, HTTPException) as error:
            if _is_final(error):
                raise
            time.sleep(wait)

    try:
        return attempt()
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _is_final(error: Exception) -> bool:
    """Whether another attempt would fail as well."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code not in _PASSING
    return isinstance(error, FileNotFoundError | PermissionError)

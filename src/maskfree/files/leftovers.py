"""Temporary files and folders for atomic writes, and removal of those that killed runs left.

Temporary files have a recognizable name and are locked by the process that writes them. A killed
process loses its locks, so a temporary file without a lock is a leftover.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PREFIX = ".maskfree-"
_NAME = re.compile(re.escape(_PREFIX) + "[0-9a-z_]{8}")
# Suffix of the old version of a folder while it is being replaced.
_OLDER = ".maskfree-older"
# Rust libraries (safetensors, tokenizers) put the error number of the system into their messages.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

# Folders in which this process has already removed leftovers.
_swept: set[Path] = set()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager that writes a temporary file and renames it to `path` at the end.

    Args:
        path: Final path; its folder is created if it does not exist. After an error the old
            content stays.

    Yields:
        Path of an empty temporary file in the same folder.

    Raises:
        OSError: The file cannot be written; the message names `path`.
    """
    # In the same folder, since a rename is atomic only within a file system.
    with writing(path):
        temporary, handle = _make(path.parent, _new_file)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


@contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """Context manager that creates a temporary folder and removes it at the end unless renamed.

    Args:
        parent: Folder in which it is created; created itself if it does not exist.

    Yields:
        Path of the empty temporary folder.

    Raises:
        OSError: The folder cannot be created.
    """
    folder, handle = _make(parent, _new_folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def replace_folder(finished: Path, folder: Path) -> None:
    """Replace a folder by a finished one, so that `whole` finds old or new content at any moment.

    Args:
        finished: Folder with the new content, in the same parent folder.
        folder: Final path, where an older version may exist.

    Raises:
        OSError: A folder cannot be renamed.
    """
    older = _older(folder)
    if folder.exists():
        # An older version that still exists here is left from a run killed after the replacement.
        _discard(older)
        folder.rename(older)

    finished.rename(folder)
    _discard(older)


def whole(folder: Path) -> Path:
    """Return the path that holds the complete content of a folder written by `replace_folder`.

    Args:
        folder: Final path of the folder.

    Returns:
        The same path, or that of the older version if a run was killed before the new one was
        in place.
    """
    older = _older(folder)
    if older.is_dir() and not folder.exists():
        return older
    return folder


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context manager that turns disk errors of any library into one line that names `path`.

    Args:
        path: File or folder that the block writes.

    Raises:
        OSError: The block raised a disk error. Errors that already have a one-line message, without
            an error number, pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        kind = type(error)
        # Subclasses defined by libraries may take other arguments, so those become a plain OSError.
        if kind.__module__ != "builtins":
            kind = OSError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:
        reason = _disk_reason(str(error))
        if reason is None:
            raise

        raise OSError(f"cannot write {path}: {reason}") from error


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that terminated processes left in a folder.

    Args:
        folder: Folder to search, without its subfolders; it need not exist.
    """
    _swept.add(folder.absolute())

    # Without file locks, leftovers cannot be told from files that are being written.
    if sys.platform == "win32":
        return

    with suppress(OSError):
        for path in list(folder.iterdir()):
            if _NAME.fullmatch(path.name):
                _remove_if_left(path)


def _disk_reason(message: str) -> str | None:
    """Find the reason of a disk error in the message of a library's own exception; None if none."""
    if code := _OS_ERROR.search(message):
        return os.strerror(int(code[1]))
    for reason in map(os.strerror, _DISK_ERRORS):
        if reason in message:
            return reason
    return None


def _older(folder: Path) -> Path:
    """Path of the old version of a folder while it is being replaced."""
    return folder.with_name(f".{folder.name}{_OLDER}")


def _discard(folder: Path) -> None:
    """Remove a folder; if that is interrupted, what remains counts as a leftover."""
    if folder.is_dir():
        # Renamed first, so that a half-removed folder is never taken for complete content.
        left = folder.with_name(f"{_PREFIX}{secrets.token_hex(4)}")
        folder.rename(left)
        shutil.rmtree(left, ignore_errors=True)


def _remove_if_left(path: Path) -> None:
    """Remove one file or folder unless a process holds its lock."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if not _lock(handle):
                return

            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _make(parent: Path, new: Callable[[Path], int]) -> tuple[Path, int]:
    """Create and lock a temporary file or folder; `new` creates it and returns the open handle."""
    parent.mkdir(parents=True, exist_ok=True)
    if parent.absolute() not in _swept:
        remove_leftovers(parent)

    # A new random name until one is free.
    while True:
        path = parent / f"{_PREFIX}{secrets.token_hex(4)}"
        try:
            handle = new(path)
        except FileExistsError:
            continue

        # Another process may have removed it as a leftover before it was locked.
        _lock(handle)
        if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
            return path, handle

        os.close(handle)


def _new_file(path: Path) -> int:
    """Create and open a file that must not exist."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _new_folder(path: Path) -> int:
    """Create and open a folder that must not exist."""
    path.mkdir()
    return os.open(path, os.O_RDONLY)


def _lock(handle: int) -> bool:
    """Lock an open file or folder; False if another process holds it or there are no locks."""
    if sys.platform == "win32":
        return False

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

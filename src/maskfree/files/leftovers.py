"""Files and folders that are being written: under names of their own, locked by the process that writes them.

What a killed process leaves is told by its name and by its lock, which went with the process.
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
_OLDER = ".maskfree-older"  # behind the name of a folder that is being replaced
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # in what safetensors and tokenizers raise

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

_swept: set[Path] = set()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write, which takes the place of `path` in one step when the block ends.

    Args:
        path: Where the content goes; its folder is made if need be. After an error what was there stays.

    Yields:
        An empty file in the same folder.

    Raises:
        OSError: It cannot be written; the message names `path`.
    """
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
    """Give an empty folder to write into, which is removed when the block ends unless it was renamed.

    Args:
        parent: The folder that it lies in, which is made if need be.

    Yields:
        The folder.

    Raises:
        OSError: It cannot be made.
    """
    folder, handle = _make(parent, _new_folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def replace_folder(finished: Path, folder: Path) -> None:
    """Put a finished folder in its place; at every moment the older or the new content can be found by `whole`.

    Args:
        finished: The new content, in the same parent folder.
        folder: Its place, where an older one may be.

    Raises:
        OSError: A folder cannot be renamed.
    """
    older = _older(folder)
    if folder.exists():
        _discard(older)  # a run was killed when it had been replaced
        folder.rename(older)
    finished.rename(folder)
    _discard(older)


def whole(folder: Path) -> Path:
    """Return where the content of a folder that `replace_folder` writes is.

    Args:
        folder: Its place.

    Returns:
        The same, or where the older content waits if a run was killed before the new one was in place.
    """
    older = _older(folder)
    return older if older.is_dir() and not folder.exists() else folder


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the disk within the block into one line that names `path`, whatever library they come from.

    Args:
        path: What the block writes.

    Raises:
        OSError: The block raised an error of the disk. Errors that have their one line already pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        kind = type(error) if type(error).__module__ == "builtins" else OSError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:
        reason = _disk_reason(str(error))
        if reason is None:
            raise
        raise OSError(f"cannot write {path}: {reason}") from error


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files and folders in `folder` whose process is gone.

    Args:
        folder: Where to look, not deeper; it need not exist.
    """
    _swept.add(folder.absolute())
    if sys.platform == "win32":
        return
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if _NAME.fullmatch(path.name):
                _remove_if_left(path)


def _disk_reason(message: str) -> str | None:
    """What is wrong with the disk, if that is what an error of a library says that has a class of its own."""
    if code := _OS_ERROR.search(message):
        return os.strerror(int(code[1]))
    return next((reason for reason in map(os.strerror, _DISK_ERRORS) if reason in message), None)


def _older(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_OLDER}")


def _discard(folder: Path) -> None:
    """Remove a folder; what a kill leaves of it is a leftover, and no content any more."""
    if folder.is_dir():
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
    """Make and lock something in PARENT by NEW, which opens it; return its path and the open file."""
    parent.mkdir(parents=True, exist_ok=True)
    if parent.absolute() not in _swept:
        remove_leftovers(parent)

    while True:
        path = parent / f"{_PREFIX}{secrets.token_hex(4)}"
        try:
            handle = new(path)
        except FileExistsError:
            continue

        # Another process may have taken it for a leftover before it was locked.
        _lock(handle)
        if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
            return path, handle
        os.close(handle)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _new_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY)


def _lock(handle: int) -> bool:
    """Take the lock of an open file or folder; False if another process has it or there are no locks here."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

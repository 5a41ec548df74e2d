"""Locking of a run's output folder: one process at a time may write to it."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

log = logging.getLogger(__name__)

LOCK = ".maskfree.lock"
"""Lock file in the folder of a run; its lock counts, not its presence."""

# Handle of the lock file and owning thread, by folder.
_HELD: dict[Path, tuple[int, int]] = {}

# Errors of file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def process_rank() -> int:
    """Return the rank of this process among those of a launcher.

    Returns:
        The rank; 0 without a launcher.
    """
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes and threads, creating it if missing.

    The kernel releases the lock when its owner ends, however it ends. A thread that holds the
    folder may lock it again. Of several processes of one run, the first one locks it for all.

    Args:
        folder: Folder of the run; removed again if it was created here and is still empty.

    Yields:
        Nothing, while the folder is locked.

    Raises:
        BlockingIOError: Another run holds the folder.
        OSError: The folder cannot be created or written to.
    """
    # Only the first process of a run locks, and a thread may enter again.
    place = folder.resolve()
    handle, thread = _HELD.get(place, (0, 0))
    if process_rank() or thread == threading.get_ident():
        yield
        return

    if place.exists() and not place.is_dir():
        raise NotADirectoryError(f"{folder} is a file: a run needs a folder")

    made = [path for path in (place, *place.parents) if not path.exists()]
    place.mkdir(parents=True, exist_ok=True)

    try:
        handle = _lock(place / LOCK, folder)
        _HELD[place] = (handle, threading.get_ident())
        try:
            yield
        finally:
            # Removed while still locked, before another process can lock it.
            (place / LOCK).unlink(missing_ok=True)
            _HELD.pop(place, None)
            os.close(handle)
    finally:
        # Remove the folders created here, unless something was put into them.
        for path in made:
            with suppress(OSError):
                path.rmdir()


def refuse_if_held(folder: Path) -> None:
    """Check that no other run holds a folder at the moment, without locking it.

    Args:
        folder: Folder of a run.

    Raises:
        BlockingIOError: Another run holds the folder.
    """
    if (folder / LOCK).exists():
        with held(folder):
            pass


def _lock(path: Path, folder: Path) -> int:
    """Open and lock the lock file, and write its owner into it for others to read."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock_open(handle, folder)
            # Another owner may have removed the file between the opening and the locking.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                break
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise

        os.close(handle)

    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle


def _lock_open(handle: int, folder: Path) -> None:
    """Lock an open file, where the system has locks."""
    if fcntl is None:
        return

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
        raise BlockingIOError(
            f"{folder} is in use by another run, {owner}: wait for its end, or give another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning(
            "%s: the file system has no locks: take care that no other run writes there", folder
        )


def _forget() -> None:
    """Close the parent's locks in a forked process, which could outlive the parent."""
    for handle, _ in _HELD.values():
        with suppress(OSError):
            os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

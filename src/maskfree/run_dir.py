"""Folder of a run: one process at a time may write to it, and only with the same settings."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from maskfree.files.atomic import MAX_TEXT_BYTES, read_json, replace_text

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

    made = []
    for path in (place, *place.parents):
        if not path.exists():
            made.append(path)
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


def check_record(
    path: Path,
    record: Mapping[str, Any],
    folder: Path | None = None,
    free: Sequence[str] = (),
    made: str = "",
    max_bytes: int = MAX_TEXT_BYTES,
) -> None:
    """Record what the files of a folder depend on, or compare it with the record there.

    Args:
        path: JSON file of the record.
        record: Plain values by name; further names in the file are not compared.
        folder: Folder that the record is about; None for that of `path`.
        free: Dotted names of values that may differ.
        made: Pattern of the files that a run makes, such as *.png: without a record there must be
            none, as they would be taken for those of an earlier run.
        max_bytes: Largest accepted size of the record.

    Raises:
        FileExistsError: There is no record, but there are files of the pattern `made`.
        ValueError: A value differs, or the record is damaged.
    """
    folder = folder or path.parent
    # Through JSON, which turns tuples into lists, as in the file.
    text = json.dumps(record, indent=1, ensure_ascii=False)

    if not path.exists():
        stray = next(folder.glob(made), None) if made else None
        if stray is not None:
            raise FileExistsError(
                f"{stray} was not made by an earlier run, and would be taken for its result: "
                "give another folder"
            )
        replace_text(path, text + "\n")
        return

    before = read_json(path, max_bytes)
    if not isinstance(before, dict):
        raise ValueError(f"{path} is no record: remove {folder} to start anew")
    check_same(folder, {name: before.get(name) for name in record}, json.loads(text), free)


def check_same(
    folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str] = ()
) -> None:
    """Check that a folder was begun with the same settings.

    Args:
        folder: Folder of an earlier run.
        before: Its recorded settings, plain values that may be nested.
        now: Settings of this run.
        free: Dotted names of settings that may differ.

    Raises:
        ValueError: A setting differs.
    """
    refuse_changes(folder, [name for name in differences(before, now) if name not in free])


def refuse_changes(folder: Path, changed: Sequence[str]) -> None:
    """Refuse to go on in a folder where settings changed.

    Args:
        folder: Folder of an earlier run.
        changed: Dotted names of the settings that differ from those of the run.

    Raises:
        ValueError: There is one.
    """
    if changed:
        raise ValueError(
            f"{folder} was begun with another {', '.join(changed)}: "
            "give another folder, or remove it to start anew"
        )


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Names of the settings in which two nested dicts differ.

    Args:
        old: First value, a nested dict or a leaf.
        new: Second value.
        name: Dotted name of the two values; empty at the top.

    Returns:
        Dotted names of the leaves that differ.

    Example:
        >>> differences({"data": {"seed": 1, "size": [2]}}, {"data": {"seed": 3, "size": [2]}})
        ['data.seed']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        below = [
            differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
            for key in {**old, **new}
        ]
        return [path for paths in below for path in paths]
    return [] if old == new else [name]


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

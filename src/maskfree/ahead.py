"""Iteration in a thread, so that making the next items overlaps with using the present one."""

from __future__ import annotations

import ctypes
from collections.abc import Generator, Iterable
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class _Closed(SystemExit):
    """Ends the thread of an iteration that is no longer wanted; threads do not report it."""


class _End(NamedTuple):
    """The end of the items, and the error that ended them, if any."""

    error: BaseException | None = None


def ahead(items: Iterable[Item], number: int = 1) -> Generator[Item]:
    """Iterate over items in a thread, a bounded number ahead.

    Work that leaves Python's global lock, as decoding and networks do, runs on another core then.

    Args:
        items: Items that take time to make. Only the thread iterates them, and closes a generator.
        number: How many items may be ready or in the making while the caller uses the one before.

    Yields:
        The items in their order; an error of theirs is raised in its place. Closing the iterator
        interrupts the thread and waits for its end.

    Example:
        >>> list(ahead(range(3)))
        [0, 1, 2]
    """
    free, made = Semaphore(number), SimpleQueue[Item | _End]()
    thread = Thread(target=_make, args=(items, free, made), daemon=True)
    thread.start()

    try:
        while not isinstance(item := made.get(), _End):
            # The thread makes the next one while the caller uses this one.
            free.release()
            yield item
            del item
    except BaseException:
        _interrupt(thread)
        free.release()
        raise
    finally:
        thread.join()

    if item.error is not None:
        raise item.error


def _make(items: Iterable[Item], free: Semaphore, made: SimpleQueue[Item | _End]) -> None:
    """Put items into a queue, one for each time that there is room."""
    iterator, end = iter(items), _End()
    try:
        while free.acquire():
            made.put(next(iterator))
    except (StopIteration, _Closed):
        pass
    # Whatever it is, the caller is to know of it.
    except BaseException as error:
        end = _End(error)
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
        made.put(end)


def _interrupt(thread: Thread) -> None:
    """Raise `_Closed` in a thread, between two steps of Python; a network may run for long."""
    if thread.is_alive() and thread.ident is not None:
        number = ctypes.c_ulong(thread.ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(_Closed))

"""Threads that read ahead of the network and write behind it, with bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Seconds to wait for a reader that is no longer needed: it may be decoding a large photo.
_PATIENCE_S = 60.0


class _LineClosed(Exception):  # noqa: N818 - no error: the other side has ended
    """The line was closed."""


class _Line(Generic[Item]):
    """A queue from one thread to another, bounded by the pixels of its items."""

    def __init__(self, max_pixels: int):
        self._changed = threading.Condition()
        self._items: deque[tuple[Item, int]] = deque()
        self._free = max_pixels
        self._ended = self._closed = False

    def put(self, item: Item, pixels: int) -> None:
        """Add an item; wait while the line is full. A single item may be larger than the bound."""
        with self._changed:
            while not self._closed and self._items and self._free < pixels:
                self._changed.wait()
            if self._closed:
                raise _LineClosed
            self._free -= pixels
            self._items.append((item, pixels))
            self._changed.notify_all()

    def get(self) -> Item:
        """Take the next item; wait for it. Raises `_LineClosed` at the end."""
        with self._changed:
            while not self._closed and not self._items and not self._ended:
                self._changed.wait()
            if self._closed or not self._items:
                raise _LineClosed
            item, pixels = self._items.popleft()
            self._free += pixels
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """Say that no further item comes; those that are there are still taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Drop all items: both sides raise `_LineClosed` from now on."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


@contextmanager
def ahead(
    items: Iterable[Item], pixels: Callable[[Item], int], max_pixels: int
) -> Iterator[Iterator[Item]]:
    """Make items in a thread, ahead of their use.

    Args:
        items: Makes the items, in the thread.
        pixels: Number of pixels of an item.
        max_pixels: Pixels that may wait; a single item may have more.

    Yields:
        Iterator over the items; it raises what making them raised.
    """
    line: _Line[Item] = _Line(max_pixels)
    failures: list[BaseException] = []

    def make() -> None:
        try:
            for item in items:
                line.put(item, pixels(item))
        except _LineClosed:
            pass
        except BaseException as error:
            failures.append(error)
        line.end()

    def take() -> Iterator[Item]:
        while True:
            try:
                item = line.get()
            except _LineClosed:
                break
            yield item
            # Freed before the next one is waited for.
            del item
        if failures:
            raise failures[0]

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        line.close()
        thread.join(_PATIENCE_S)


@contextmanager
def behind(
    work: Callable[[Item], None], pixels: Callable[[Item], int], max_pixels: int
) -> Iterator[Callable[[Item], None]]:
    """Do work on items in a thread, behind those who hand them over.

    Args:
        work: Called in the thread with each item, in their order.
        pixels: Number of pixels of an item.
        max_pixels: Pixels that may wait; a single item may have more.

    Yields:
        Function that hands an item over. It, or leaving the context, raises what the work raised.
        Items that were handed over are finished when the context is left, whatever ends it.
    """
    line: _Line[Item] = _Line(max_pixels)
    failures: list[BaseException] = []
    ended = threading.Event()

    def do() -> None:
        try:
            while True:
                work(line.get())
        except _LineClosed:
            pass
        except BaseException as error:
            failures.append(error)
            line.close()
        finally:
            ended.set()

    def hand_over(item: Item) -> None:
        try:
            line.put(item, pixels(item))
        except _LineClosed:
            raise failures[0] from None

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    try:
        yield hand_over
    finally:
        line.end()
        # However long it takes, and also where a signal comes in the meantime: what was handed
        # over is not lost. Not by `join`, after whose interruption Python takes a living thread
        # for one that has ended (bpo-45274, until 3.13).
        try:
            ended.wait()
        except BaseException:
            ended.wait()
            raise
    if failures:
        raise failures[0]

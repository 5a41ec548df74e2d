"""How far long work has come: a bar on a terminal, a line now and then elsewhere, nothing if quiet."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

BAR_AFTER_S = 2.0  # shorter work shows nothing
REDRAW_S = 0.1
LINE_EVERY_S = 30.0  # where stderr is no terminal

Item = TypeVar("Item")


class Watch(Protocol):
    """Passes items on, and may show how many went by."""

    def __call__(
        self, items: Iterable[Item], name: str = "photos", total: int | None = None
    ) -> Iterable[Item]:
        """Return ITEMS.

        Args:
            items: What is worked through.
            name: What they are, or what is done with them.
            total: How many there are; None: their length, if they have one.
        """
        ...


def unwatched(
    items: Iterable[Item], name: str = "photos", total: int | None = None
) -> Iterable[Item]:
    """Return ITEMS and show nothing; a `Watch`."""
    return items


@dataclass(frozen=True)
class Progress:
    """A `Watch` that shows on stderr how far the work has come and how long it will still take.

    On a terminal it is a bar, which comes when the work has taken two seconds and goes when it is
    done. Elsewhere it is a line, at most every 30 seconds.
    """

    quiet: bool = False
    """Show nothing."""
    title: str = ""
    """Shown in place of the items' name."""
    clock: Callable[[], float] = time.monotonic
    """Seconds since any moment."""
    stream: TextIO | None = None
    """Where it is shown; None: stderr."""

    def __call__(
        self, items: Iterable[Item], name: str = "photos", total: int | None = None
    ) -> Iterator[Item]:
        """Pass ITEMS on and show how many went by."""
        if self.quiet:
            yield from items
            return

        if total is None and isinstance(items, Sized):
            total = len(items)
        with _Display(self.stream or sys.stderr, self.title or name, total, self.clock) as display:
            for done, item in enumerate(items, 1):
                yield item
                display.tell(done)


class _Display(AbstractContextManager["_Display"]):
    """The bar or the lines of one piece of work.

    It is drawn when `tell` is called and by no thread: processes are forked while work goes on.
    """

    def __init__(self, stream: TextIO, name: str, total: int | None, clock: Callable[[], float]):
        self._stream, self._name, self._total, self._clock = stream, name, total, clock
        self._began = self._told = clock()
        self._bar: Bar | None = None
        console = Console(file=stream)
        self._console = console if stream.isatty() and not console.is_dumb_terminal else None

    def tell(self, done: int) -> None:
        """Show that DONE items went by, unless that was told a moment ago."""
        now = self._clock()
        pause = LINE_EVERY_S
        if self._console:
            pause = REDRAW_S if self._bar else BAR_AFTER_S
        if now - self._told < pause:
            return

        self._told = now
        left = self._left(done, now - self._began)
        if self._console:
            self._draw(self._console, done, left)
            return
        of_all = f"{done} of {self._total}" if self._total else str(done)
        self._stream.write(f"maskfree: {self._name}: {of_all}, {left}\n")
        self._stream.flush()

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def _left(self, done: int, seconds: float) -> str:
        """How long it will still take, or how long it took so far if that is all that is known."""
        if not self._total:
            return f"{_spelled(seconds)} so far"
        return f"{_spelled(seconds / done * max(self._total - done, 0))} left"

    def _draw(self, console: Console, done: int, left: str) -> None:
        if not self._bar:
            name, counts = TextColumn("{task.description}", markup=False), MofNCompleteColumn()
            self._bar = Bar(
                *(name, BarColumn(), counts, TextColumn("{task.fields[left]}")),
                console=console,
                auto_refresh=False,
                transient=True,
                # Lines of results go to the screen above the bar, but to a file as they are.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._bar.add_task(self._name, total=self._total, completed=done, left=left)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, left=left)
        self._bar.refresh()


def _spelled(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(datetime.timedelta(seconds=round(seconds)))

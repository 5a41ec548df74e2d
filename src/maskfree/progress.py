"""Progress reports: a bar on a terminal, occasional lines elsewhere, nothing if quiet."""

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

# Seconds before the bar appears: shorter work shows nothing.
BAR_AFTER_S = 2.0
REDRAW_S = 0.1
# Seconds between lines where stderr is not a terminal.
LINE_EVERY_S = 30.0

Item = TypeVar("Item")


class Watch(Protocol):
    """Protocol of progress reports: passes items on and may show how many went by."""

    def __call__(
        self, items: Iterable[Item], name: str = "photos", total: int | None = None
    ) -> Iterable[Item]:
        """Pass items on.

        Args:
            items: Items to pass on.
            name: Shown name of the items, or of the work.
            total: Number of items; None: their length, if they have one.

        Returns:
            The items.
        """
        ...


def unwatched(
    items: Iterable[Item], name: str = "photos", total: int | None = None
) -> Iterable[Item]:
    """Pass items on without showing anything; a `Watch`.

    Args:
        items: Items to pass on.
        name: Shown name of the items, or of the work.
        total: Number of items; None: their length, if they have one.

    Returns:
        The items.
    """
    return items


@dataclass(frozen=True)
class Progress:
    """A `Watch` that shows progress and remaining time on stderr.

    On a terminal it is a bar, which appears after two seconds of work and disappears at the end.
    Elsewhere it is a line, at most every 30 seconds.
    """

    quiet: bool = False
    """Show nothing."""
    title: str = ""
    """Shown in place of the items' name."""
    rate: bool = False
    """Show how many items go by in a second."""
    clock: Callable[[], float] = time.monotonic
    """Monotonic clock in seconds."""
    stream: TextIO | None = None
    """Stream to write to; None: stderr."""

    def __call__(
        self, items: Iterable[Item], name: str = "photos", total: int | None = None
    ) -> Iterator[Item]:
        """Pass items on and show how many went by.

        Args:
            items: Items to pass on.
            name: Shown name of the items, or of the work.
            total: Number of items; None: their length, if they have one.

        Yields:
            The items.
        """
        if self.quiet:
            yield from items
            return
        if total is None and isinstance(items, Sized):
            total = len(items)

        stream, name = self.stream or sys.stderr, self.title or name
        with _Display(stream, name, total, self.clock, self.rate) as display:
            for done, item in enumerate(items, 1):
                yield item
                display.show(done)


class _Display(AbstractContextManager["_Display"]):
    """The bar or the lines of one piece of work.

    It is drawn only when `show` is called, without a thread, as processes may be forked during the
    work.
    """

    def __init__(
        self,
        stream: TextIO,
        name: str,
        total: int | None,
        clock: Callable[[], float],
        rate: bool = False,
    ):
        self._stream, self._name, self._total, self._clock = stream, name, total, clock
        self._rate = rate
        self._began = self._last_shown = clock()
        self._bar: Bar | None = None
        self._console: Console | None = None
        console = Console(file=stream)
        if stream.isatty() and not console.is_dumb_terminal:
            self._console = console

    def show(self, done: int) -> None:
        """Show the number of items done, unless it was shown a moment ago.

        Args:
            done: Number of items that went by.
        """
        now = self._clock()
        # A new bar waits longer than a redraw, so that short work shows nothing.
        pause = LINE_EVERY_S
        if self._bar:
            pause = REDRAW_S
        elif self._console:
            pause = BAR_AFTER_S
        if now - self._last_shown < pause:
            return

        self._last_shown = now
        left = self._left(done, now - self._began)
        if self._console:
            self._draw(self._console, done, left)
            return

        of_all = str(done)
        if self._total:
            of_all += f" of {self._total}"
        self._stream.write(f"maskfree: {self._name}: {of_all}, {left}\n")
        self._stream.flush()

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.stop()

    def _left(self, done: int, seconds: float) -> str:
        """Remaining time, or elapsed time if the total is unknown; and the rate if it is shown."""
        rate = f", {done / seconds:.1f}/s" if self._rate else ""
        if not self._total:
            return f"{_spelled(seconds)} so far{rate}"
        return f"{_spelled(seconds / done * max(self._total - done, 0))} left{rate}"

    def _draw(self, console: Console, done: int, left: str) -> None:
        """Draw the bar, creating it on the first call."""
        if not self._bar:
            # Names are not markup: they may contain brackets.
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

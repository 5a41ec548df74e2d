"""Handling of SIGINT and SIGTERM in commands, training and worker processes."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.pool import Pool
from types import FrameType
from typing import Any, ClassVar

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# A SIGINT sooner than this after the first is a repetition by a launcher.
_AGAIN_SECONDS = 1.0

# Interval at which workers look for their parent.
_POLL_SECONDS = 0.5


class Stopped(KeyboardInterrupt):
    """A signal ended the work early; the message, if any, says what was done."""


class StopSignals:
    """Context that catches SIGINT and SIGTERM: the first one requests a stop.

    A second Ctrl-C, at least a second later, ends the process at once. Repetitions before that and
    every other SIGTERM are ignored: `timeout` and torchrun send their signal to the process and to
    its group, so it arrives twice. Contexts may be nested; the innermost decides what the first
    signal does. Outside the main thread, where Python allows no handlers, nothing is caught.

    Args:
        finish: Whether to only note the first signal in `number`, so that the current work can be
            finished and saved. Otherwise the signal raises `Stopped`.
    """

    _current: ClassVar[StopSignals | None] = None

    def __init__(self, finish: bool = False) -> None:
        self._finish = finish
        self._root = self
        self._number: signal.Signals | None = None
        self._first_seconds = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._outer: StopSignals | None = None

    @property
    def number(self) -> signal.Signals | None:
        """First signal that arrived in this context or one around it.

        Returns:
            The signal; None if there was none.
        """
        return self._root._number

    def __enter__(self) -> StopSignals:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            # The outermost context records the signal for all nested ones.
            self._outer = StopSignals._current
            self._root = self
            if self._outer:
                self._root = self._outer._root
            StopSignals._current = self
            self._before = {each: signal.signal(each, self._catch) for each in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the previous handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            StopSignals._current = self._outer

    def _catch(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one requests a stop, a late SIGINT ends the process."""
        root = self._root
        if root._number is not None:
            seconds = time.monotonic() - root._first_seconds
            if number == signal.SIGINT and seconds >= _patience_seconds():
                _end_at_once()
            return

        root._number, root._first_seconds = signal.Signals(number), time.monotonic()
        if not self._finish:
            raise Stopped

        # Not by logging, whose locks may be held when the signal arrives.
        with suppress(OSError):
            os.write(2, b"stopping after this step\n")


def _patience_seconds() -> float:
    """Time during which a second SIGINT counts as a launcher's repetition of the first."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return math.inf
    return _AGAIN_SECONDS


def _end_at_once() -> None:
    """End by SIGINT as if nothing had caught it."""
    if sys.stderr.isatty():
        # A progress bar hides the cursor.
        sys.stderr.write("\x1b[?25h\n")
        sys.stderr.flush()

    # The default handler gives the exit status that shells expect.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def start_worker(obey_sigterm: bool = False) -> None:
    """Set up a worker process, from within: it ignores SIGINT and ends when its parent ends.

    Whoever stops a job signals all of its processes, and the parent may need its workers to finish
    the current step.

    Args:
        obey_sigterm: Whether to clean up and end on SIGTERM, by which a `multiprocessing.Pool` ends
            its workers. Otherwise SIGTERM is ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ignoring a signal also discards one that waits to be unblocked, so it is set only once.
    if obey_sigterm:
        signal.signal(signal.SIGTERM, _leave)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The process inherits the blocking of `held_back`.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()


def _leave(number: int, frame: FrameType | None) -> None:
    """Exit through the `finally` clauses, which remove temporary files."""
    sys.exit(128 + number)


def _end_with(parent: int | None) -> None:
    """Poll for the parent's end, as a killed parent cannot signal it, and then exit."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


@contextmanager
def held_back() -> Iterator[None]:
    """Block signals while worker processes are started, which inherit the blocking.

    A signal would end a worker in which `start_worker` has not run yet.

    Yields:
        Nothing, while signals are blocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_pool(number: int) -> Pool:
    """Start a pool of new worker processes, none of which outlives this process.

    Args:
        number: Number of processes.

    Returns:
        Pool, to be used in a `with` statement.
    """
    # It starts with the first worker, and would let signals pass.
    resource_tracker.ensure_running()
    with held_back():
        return multiprocessing.get_context("spawn").Pool(number, start_worker, (True,))

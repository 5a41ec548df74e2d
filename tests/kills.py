"""Killing a piece of work between any two steps that it takes on the disk."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

_STEPS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.link",
    "os.symlink",
)
_KILLED, _FAILED = 9, 1


def killed_at_each_step(work: Callable[[], object]) -> Iterator[int]:
    """Let WORK run in a process that is killed before its first step on the disk, then before its
    second, and so on.

    Yields how many steps were done each time, after the kill; the last time WORK came to its end.
    """
    number = 0
    while True:
        status = _run(work, number)
        assert status in (0, _KILLED), "the work failed by itself"
        yield number
        if status == 0:
            return
        number += 1


def _run(work: Callable[[], object], steps: int) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of a fork beside threads, which the child does not use
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    left = steps

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in _STEPS and not (event == "open" and _only_reads(arguments)):
            left -= 1
            if left < 0:
                os._exit(_KILLED)

    try:
        sys.addaudithook(count)
        work()
    except BaseException:
        os._exit(_FAILED)
    os._exit(0)


def _only_reads(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2]
    return not flags & (os.O_WRONLY | os.O_RDWR)

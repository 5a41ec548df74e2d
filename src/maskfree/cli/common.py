"""What the commands share: exit statuses, how the network runs, messages, memory."""

from __future__ import annotations

import ctypes
import io
import os
import platform
import sys
from dataclasses import dataclass
from typing import Literal

BAD_INPUT = 2  # exit status of every user error, as of argument errors
_MALLOC = {  # parameters of glibc's mallopt(3)
    -3: 2**28,  # M_MMAP_THRESHOLD: larger blocks still go back at once
    -1: 2**30,  # M_TRIM_THRESHOLD: free memory at the heap's end that is kept
    -2: 2**26,  # M_TOP_PAD: the heap grows by at least so much
}


@dataclass(frozen=True)
class Hardware:
    """Where the network runs."""

    batch_size: int | None = None
    """Photos or windows that go through the network together; None: as many as the model says."""
    device: str = "auto"
    """auto (cuda, mps or cpu, the first that is there), cpu, mps, cuda or cuda:N."""


@dataclass(frozen=True)
class Runtime(Hardware):
    """How the network is run."""

    side_px: int | None = None
    """Shorter side of the photo as the network sees it; None: the model's own."""
    refine: Literal["none", "pamr", "crf"] | None = None
    """How scores are brought to pixels: none is bilinearly; the others follow the photo's own edges. None: the model's
    own."""


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks for the next tensor instead of handing each one back to the system.

    By default every large tensor is fresh pages from the kernel, which clears them one by one: on a CPU that costs a
    good part of a network's time. What is kept is bounded: blocks up to a size, and free memory up to another. Only the
    command does this; a program that imports the package keeps its own settings. Elsewhere than on glibc: nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    process = ctypes.CDLL(None)
    for parameter, value in _MALLOC.items():
        process.mallopt(parameter, value)


def log_to_stderr() -> None:
    """Show what is logged, without the rest of the program's output."""
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    handler = (
        RichHandler(console=console, show_path=False)
        if console.is_terminal
        else logging.StreamHandler()
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def complain(message: str) -> None:
    """Say in one line what is wrong."""
    _say("error", message)


def note(message: str) -> None:
    """Say in one line what was done otherwise than the user may expect; nothing is wrong."""
    _say("note", message)


def line_of(error: Exception) -> str:
    """Return what is wrong, for `complain`; an error of the system as it comes has no sentence of its own."""
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def print_safely() -> None:
    """Escape letters that stdout and stderr cannot encode, such as those of a file's name; they raise by default."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(kind: str, message: str) -> None:
    line = " ".join(message.split())
    sys.stderr.write(f"maskfree: {kind}: {line}\n")

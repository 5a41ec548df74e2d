"""Shared parts of the commands: exit status, hardware options, messages, memory settings."""

from __future__ import annotations

import ctypes
import io
import os
import platform
import sys
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from maskfree.files.user_cache import VARIABLE as CACHE_VARIABLE
from maskfree.inference.runtimes.names import RuntimeName, need_runtime

if TYPE_CHECKING:
    from maskfree.config.rules import Grouping
    from maskfree.text.background import Background

PixelGroups = Literal["clusters", "kmeans", "pixels"]
Regions = Literal["hard", "soft"]

BAD_INPUT = 2
"""Exit status of every user error, the same as of argument errors."""

# Parameters of glibc's mallopt(3), the first three in bytes.
_MALLOC = {
    # M_MMAP_THRESHOLD: larger blocks are still returned to the system at once.
    -3: 2**28,
    # M_TRIM_THRESHOLD: free memory kept at the end of the heap.
    -1: 2**30,
    # M_TOP_PAD: smallest step by which the heap grows.
    -2: 2**26,
    # M_ARENA_MAX: threads share one heap, as blocks of others would not be kept.
    -8: 1,
}

# How threads of OpenMP wait for each other: asleep instead of in a loop. GNU's and LLVM's names.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


@dataclass(frozen=True)
class Conduct:
    """What a run shows, and whether it may use the network."""

    quiet: bool = False
    """Do not show progress."""
    offline: bool = False
    """Use no network: only models in the package, in folders and in the cache of Hugging Face."""


@dataclass(frozen=True)
class Device:
    """Device of the network, and what it may download and keep."""

    device: str = "auto"
    """Device: auto (the first available of cuda, mps and cpu), cpu, mps, cuda or cuda:N."""
    offline: bool = False
    """Use no network: only models in the package, in folders and in the cache of Hugging Face."""
    cache: bool = True
    """Keep text embeddings, exported networks and search indexes in the user's cache folder, and
    use those that are there."""

    def apply(self) -> None:
        """Stay offline and leave the cache alone, if asked to."""
        stay_offline(self.offline)
        if not self.cache:
            os.environ[CACHE_VARIABLE] = "off"


@dataclass(frozen=True)
class Network(Device):
    """Input resolution and device of the network."""

    side_px: int | None = None
    """Length in pixels to which the shorter side of a photo is resized; None: the model's own."""


@dataclass(frozen=True)
class Execution(Device):
    """Device and runtime of the network."""

    runtime: RuntimeName = "auto"
    """What runs the image side on a CPU: torch, onnx (onnxruntime) or openvino, for which the
    network is exported once; auto: the fastest installed one if the network has been exported,
    else torch (evaluate: always torch). openvino-bf16 and openvino-int8 change some labels."""
    fast: bool = False
    """The same as --runtime openvino-int8: the image side in 8 bits, for models that store ranges,
    as the bundled one."""

    def chosen_runtime(self) -> RuntimeName:
        """Choose the runtime that both options ask for.

        Returns:
            Its name.

        Raises:
            ValueError: They contradict each other, or its package is missing.
        """
        name = self.runtime
        if self.fast:
            if name not in ("auto", "openvino-int8"):
                raise ValueError(f"--fast is --runtime openvino-int8: leave --runtime {name} out")
            name = "openvino-int8"
        need_runtime(name)
        return name


@dataclass(frozen=True)
class Hardware(Execution):
    """Device, runtime and batch size of the network."""

    batch_size: int | None = None
    """Number of photos or windows in a batch; None: the model's own setting."""


@dataclass(frozen=True)
class Runtime(Network, Hardware):
    """Device, batch size, input resolution and upsampling of the network."""

    refine: Literal["none", "pamr", "crf", "regions"] | None = None
    """Upsampling of the scores: none (bilinear), or pamr, crf or regions, which follow the photo's
    edges; None: the model's own."""
    grouping: PixelGroups | None = None
    """What a ViL-Seg groups pixels by: clusters of its online head, kmeans of each photo, or pixels
    (nothing); None: the model's own."""
    regions: Regions | None = None
    """Clusters of the online head: hard, each pixel in one, or soft, in all by their probability;
    hard with --grouping clusters."""


def chosen_grouping(grouping: PixelGroups | None, regions: Regions | None) -> Grouping | None:
    """Combine the options --grouping and --regions.

    Args:
        grouping: What groups pixels; None: not given.
        regions: Whether a pixel is in one cluster or in all; None: not given.

    Returns:
        The inference setting; None for the model's own.

    Raises:
        ValueError: Regions are asked of something else than clusters.
    """
    if regions is None:
        return grouping
    if grouping not in (None, "clusters"):
        raise ValueError(
            f"--regions {regions} is for clusters of an online head: leave it out with "
            f"--grouping {grouping}"
        )
    return "clusters" if regions == "hard" else "soft clusters"


def options_of(settings: Any) -> list[str]:
    """Command-line options that give settings, for the record of a command.

    Args:
        settings: Instance of a dataclass whose fields are options without a prefix, which may
            contain others.

    Returns:
        All options with their values, also those that are defaults.
    """
    options = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            options += options_of(value)
        else:
            options += [f"--{field.name.replace('_', '-')}", str(value)]

    return options


def stay_offline(offline: bool) -> None:
    """Forbid the download of models, as the variable HF_HUB_OFFLINE does.

    Args:
        offline: Value of the option `--offline`; False changes nothing.
    """
    if not offline:
        return

    # For child processes, and for this one if the Hub client has read the variable already.
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # pyright: ignore[reportAttributeAccessIssue]


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks for the next tensor instead of returning them.

    By default each large tensor gets new pages, which the kernel has to clear: on a CPU that takes
    a good part of a network's time. The size of the blocks that are kept, and of the free memory,
    is bounded. Only the command line does this; a program that imports the package keeps its own
    settings. Without glibc this function does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return

    process = ctypes.CDLL(None)
    for parameter, value in _MALLOC.items():
        process.mallopt(parameter, value)


def wait_passively() -> None:
    """Let the threads of a network sleep while they wait for each other.

    By default a thread that has finished its share spins. Where other processes need the cores, as
    on a shared machine, the spinning takes the time that the last thread needs, and all threads
    take several times as long as one. Results are the same. Variables that the user has set stay,
    and nothing changes once torch is loaded.
    """
    for name, value in _WAITING.items():
        os.environ.setdefault(name, value)


def log_to_stderr() -> None:
    """Send log messages to stderr, apart from the program's output on stdout."""
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    # Timestamps and colors only for people: a file or pipe gets the bare messages.
    console = Console(stderr=True)
    handler: logging.Handler = logging.StreamHandler()
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def complain(message: str) -> None:
    """Print an error message as one line on stderr.

    Args:
        message: What is wrong; its line breaks become spaces.
    """
    _say("error", message)


def note(message: str) -> None:
    """Print a note, which is not an error, as one line on stderr.

    Args:
        message: What was done differently from what the user may expect.
    """
    _say("note", message)


def note_few_words(background: Background) -> None:
    """Say with which words few words compete where nobody asked for a background rule.

    Args:
        background: The rule with its words; nothing is said of one without words.
    """
    if background.words:
        others = ", ".join(word for (word,) in background.words)
        note(f"few words compete with {others}: see --background; none gives them the whole photo")


def line_of(error: Exception) -> str:
    """Message of an exception, for `complain`.

    Args:
        error: An exception; one of the system that has only a file name and an error number gets
            a message of both.

    Returns:
        The message, or the name of the exception's class if it has none.
    """
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def print_safely() -> None:
    """Make stdout and stderr escape characters that they cannot encode, instead of raising.

    Names of files, for example, may contain such characters.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(kind: str, message: str) -> None:
    """Write one line of a kind, "error" or "note", to stderr."""
    line = " ".join(message.split())
    sys.stderr.write(f"maskfree: {kind}: {line}\n")

"""Message and exit status of a command that SIGINT or SIGTERM stopped."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence

from maskfree.cli.common import BAD_INPUT, complain, line_of
from maskfree.run_dir import process_rank
from maskfree.signals import StopSignals

# Longest command that the message repeats.
_MAX_CHARACTERS = 300

NOTHING = "nothing was written"
"""Reason given to `Stopped` by a command that had not written anything yet."""

_NOTHING = (NOTHING, "to start anew")
_KEPT = ("what was finished is kept", "to go on")
_STOPS: dict[str, tuple[str, str]] = {
    "segment": ("photos that were done have all their files", "to start anew"),
    "label": ("photos that were labeled are kept", "to go on"),
    "track": ("frames that were done are written", "to start anew"),
    "evaluate": ("photos that were counted are kept", "to go on"),
    "evaluate tracking": _NOTHING,
    "evaluate regions": ("kinds that were done are written", "to start anew"),
    "evaluate knn": _NOTHING,
    "evaluate linear": _NOTHING,
    "train": _KEPT,
    "distill": _KEPT,
    "vilseg": _KEPT,
    "ovsegmentor": _KEPT,
    "clips4": _KEPT,
    "serve": ("requests under way were answered", "to start anew"),
    "prepare entities": ("shards that were done are kept", "to go on"),
    "prepare segments": ("photos that were done are kept", "to go on"),
    "prepare teacher": ("photos that were done are kept", "to go on"),
}
"""For each command: what an interrupted run leaves, and what running it again does."""

_RESUMED = ("train", "prepare entities")
"""Commands that resume only with the option --resume."""


def guarded(
    run: Callable[[Sequence[str]], int], arguments: Sequence[str], program: str = "maskfree"
) -> int:
    """Run a command; turn bad input and signals into one line on stderr.

    Args:
        run: Takes the arguments and returns an exit status.
        arguments: Of the command, its name first.
        program: How the command is called, for messages.

    Returns:
        The exit status.
    """
    with StopSignals() as signals:
        try:
            return run(arguments)
        except (ValueError, OSError) as error:
            complain(line_of(error))
            return BAD_INPUT
        except KeyboardInterrupt as stop:
            return tell_stop(arguments, str(stop), signals.number, program)


def tell_stop(
    arguments: Sequence[str], done: str, number: signal.Signals | None, program: str = "maskfree"
) -> int:
    """Print one line on stderr that tells what is complete and how to continue.

    Args:
        arguments: Command line, beginning with the command's name.
        done: What is complete, if the command reported it; otherwise empty.
        number: Signal that stopped the command; None counts as SIGINT.
        program: How the command is called.

    Returns:
        Exit status by the convention of shells: 128 plus the number of the signal.
    """
    number = number or signal.SIGINT
    # The kinds of a command may leave different things behind.
    name = " ".join(arguments[:2])
    if name not in _STOPS:
        name = "".join(arguments[:1])

    usual, purpose = _STOPS.get(name, _NOTHING)
    if done == NOTHING:
        usual, purpose = _NOTHING

    # Of several processes only the first prints.
    if process_rank() == 0:
        more = ["--resume"] if name in _RESUMED and done != NOTHING else []
        how = _command([program, *arguments], more)
        sys.stderr.write(f"maskfree: stopped by {number.name}: {done or usual}; {purpose}: {how}\n")

    return 128 + number


def _command(arguments: Sequence[str], more: Sequence[str]) -> str:
    """The command to run again; only described if it is long or was started by a launcher."""
    more = [option for option in more if option not in arguments]
    whole = " ".join([arguments[0], shlex.join([*arguments[1:], *more])])
    if len(whole) <= _MAX_CHARACTERS and "LOCAL_WORLD_SIZE" not in os.environ:
        return whole
    return "the same command" + (f" with {' '.join(more)}" if more else "")

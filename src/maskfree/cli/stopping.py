"""What a command says when SIGINT or SIGTERM ended it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence

from maskfree.cli.common import BAD_INPUT, complain, line_of
from maskfree.run_dir import process_rank
from maskfree.signals import StopSignals

_MOST_CHARACTERS = 300  # of a command that is repeated

NOTHING = "nothing was written"

_NOTHING = (NOTHING, "to start anew")
_KEPT = ("what was finished is kept", "to go on")
_STOPS: dict[str, tuple[str, str]] = {
    "segment": ("photos that were done have all their files", "to start anew"),
    "track": ("frames that were done are written", "to start anew"),
    "evaluate": ("photos that were counted are kept", "to go on"),
    "train": _KEPT,
    "self-train": _KEPT,
    "distill": _KEPT,
    "vilseg": _KEPT,
    "ovsegmentor": _KEPT,
    "clips4": _KEPT,
    "prepare entities": ("shards that were done are kept", "to go on"),
    "prepare segments": ("photos that were done are kept", "to go on"),
    "prepare teacher": ("photos that were done are kept", "to go on"),
}
"""What each command leaves behind, and what repeating it does."""

_RESUMED = ("train", "prepare entities")
"""Commands that go on only if they are told to."""


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
    """Say on stderr, in one line, what was done and how to go on.

    Args:
        arguments: Of the command, its name first.
        done: What was done, if the command knows more than its name tells.
        number: The signal.
        program: How the command is called.

    Returns:
        The exit status, as shells report it.
    """
    number = number or signal.SIGINT
    name = " ".join(arguments[:2]) if arguments[:1] == ["prepare"] else "".join(arguments[:1])
    usual, purpose = _NOTHING if done == NOTHING else _STOPS.get(name, _NOTHING)
    if process_rank() == 0:
        how = _command(
            [program, *arguments], ["--resume"] if name in _RESUMED and done != NOTHING else []
        )
        sys.stderr.write(f"maskfree: stopped by {number.name}: {done or usual}; {purpose}: {how}\n")
    return 128 + number


def _command(arguments: Sequence[str], more: Sequence[str]) -> str:
    """The command to give, unless it is long or a launcher's."""
    more = [option for option in more if option not in arguments]
    whole = " ".join([arguments[0], shlex.join([*arguments[1:], *more])])
    if len(whole) <= _MOST_CHARACTERS and "LOCAL_WORLD_SIZE" not in os.environ:
        return whole
    return "the same command" + (f" with {' '.join(more)}" if more else "")

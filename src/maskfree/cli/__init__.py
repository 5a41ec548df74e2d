"""The `maskfree` command line interface.

Each command is a thin function over the API. It imports heavy modules only when it runs, so that
`--help` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from rich.console import Console

from maskfree.cli.common import print_safely
from maskfree.cli.convert import convert
from maskfree.cli.distill import distill, distill_with
from maskfree.cli.evaluate import compare, datasets, evaluate
from maskfree.cli.evaluate_segments import evaluate_segments
from maskfree.cli.parsing import HELP_ALL, parse_command
from maskfree.cli.prepare import prepare, prepare_what
from maskfree.cli.probe import probe
from maskfree.cli.search import search
from maskfree.cli.segment import models, segment
from maskfree.cli.self_train import self_train, self_train_with
from maskfree.cli.stopping import guarded
from maskfree.cli.track import evaluate_tracking, track
from maskfree.cli.train import train, train_recipe

DESCRIPTION = "Label every pixel of a photo with your own words. `maskfree --version` tells which release this is."

# Functions by the name of their command; --help lists them in this order.
COMMANDS: dict[str, Callable[..., Any]] = {
    command.__name__.replace("_", "-"): command
    for command in (
        segment,
        track,
        search,
        prepare,
        train,
        self_train,
        distill,
        evaluate,
        probe,
        evaluate_tracking,
        evaluate_segments,
        compare,
        datasets,
        convert,
        models,
    )
}

NESTED: dict[str, Callable[[Sequence[str]], int]] = {
    "prepare": prepare_what,
    "train": train_recipe,
    "self-train": self_train_with,
    "distill": distill_with,
}
"""Commands that parse their own arguments, most because options depend on the first one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit the process with its status.

    Args:
        arguments: Command line without the program name; None: that of the process.

    Raises:
        SystemExit: Always, with the exit status.
    """
    # Names of files may contain what the terminal cannot encode.
    print_safely()
    arguments = list(sys.argv[1:] if arguments is None else arguments)

    if arguments[:1] in (["--version"], ["-V"]):
        Console(highlight=False).print(f"maskfree {version('maskfree')}")
        sys.exit(0)

    # Errors of the input and stop signals end in one line on stderr instead of a traceback.
    sys.exit(guarded(_run, arguments))


def _run(arguments: Sequence[str]) -> int:
    """Run a command and return its status; `--help` and wrong arguments end in SystemExit."""
    # General help of a command, without a recipe or another first argument.
    general = arguments[1:2] in ([], ["-h"], ["--help"], [HELP_ALL])

    # The help of self-train and distill lists all settings, which need no first argument.
    if arguments[:1] in (["self-train"], ["distill"]) or (
        arguments[:1] and arguments[0] in NESTED and not general
    ):
        return NESTED[arguments[0]](arguments[1:])

    return parse_command(COMMANDS, "maskfree", arguments, DESCRIPTION)() or 0

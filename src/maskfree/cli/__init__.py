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

from maskfree.cli.common import print_safely, wait_passively
from maskfree.cli.compare import compare
from maskfree.cli.convert import convert
from maskfree.cli.datasets import datasets
from maskfree.cli.distill import distill, distill_how
from maskfree.cli.download import download
from maskfree.cli.evaluate import evaluate, evaluate_what
from maskfree.cli.export import export
from maskfree.cli.label import label
from maskfree.cli.models import models
from maskfree.cli.parsing import parse_call, parse_command
from maskfree.cli.prepare import prepare, prepare_what
from maskfree.cli.search import search
from maskfree.cli.segment import segment
from maskfree.cli.serve import serve
from maskfree.cli.stopping import guarded
from maskfree.cli.track import track
from maskfree.cli.train import train, train_recipe

DESCRIPTION = (
    "Label every pixel of a photo with your own words. `maskfree --version` tells which release "
    "this is."
)

# Functions by the name of their command; --help lists them in this order.
COMMANDS: dict[str, Callable[..., Any]] = {
    command.__name__: command
    for command in (
        segment,
        label,
        track,
        search,
        serve,
        train,
        distill,
        evaluate,
        prepare,
        compare,
        models,
        download,
        datasets,
        convert,
        export,
    )
}

NESTED: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train_recipe,
    "distill": distill_how,
    "evaluate": evaluate_what,
    "prepare": prepare_what,
}
"""Commands that parse their own arguments, since the options depend on the first one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit the process with its status.

    Args:
        arguments: Command line without the program name; None: that of the process.

    Raises:
        SystemExit: Always, with the exit status.
    """
    # Names of files may contain what the terminal cannot encode.
    print_safely()
    wait_passively()
    arguments = list(sys.argv[1:] if arguments is None else arguments)

    if arguments[:1] in (["--version"], ["-V"]):
        Console(highlight=False).print(f"maskfree {version('maskfree')}")
        sys.exit(0)

    # Errors of the input and stop signals end in one line on stderr instead of a traceback.
    sys.exit(guarded(_run, arguments))


def _run(arguments: Sequence[str]) -> int:
    """Run a command and return its status; `--help` and wrong arguments end in SystemExit."""
    command = "".join(arguments[:1])
    if command in NESTED:
        return NESTED[command](arguments[1:])
    if command in COMMANDS:
        return parse_call(COMMANDS[command], f"maskfree {command}", arguments[1:])() or 0
    if command and not command.startswith("-"):
        raise ValueError(f"there is no command {command!r}: choose from {', '.join(COMMANDS)}")

    return parse_command(COMMANDS, "maskfree", arguments, DESCRIPTION)() or 0

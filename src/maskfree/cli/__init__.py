"""The `maskfree` command: thin functions over the API, which they import when they run, so that `--help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import tyro
from rich.console import Console

from maskfree.cli.common import print_safely
from maskfree.cli.convert import convert
from maskfree.cli.distill import distill, distill_with
from maskfree.cli.evaluate import compare, datasets, evaluate
from maskfree.cli.evaluate_segments import evaluate_segments
from maskfree.cli.prepare import prepare, prepare_what
from maskfree.cli.probe import probe
from maskfree.cli.retrieve import retrieve
from maskfree.cli.segment import models, segment
from maskfree.cli.self_train import self_train, self_train_with
from maskfree.cli.stopping import guarded
from maskfree.cli.track import evaluate_tracking, track
from maskfree.cli.train import train, train_recipe

DESCRIPTION = "Label every pixel of a photo with your own words. `maskfree --version` tells which release this is."
COMMANDS: dict[str, Callable[..., Any]] = {
    command.__name__.replace("_", "-"): command
    for command in (
        segment,
        track,
        retrieve,
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
"""Commands whose options depend on the first argument."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that ARGUMENTS (by default the process's own) name, and exit with its status."""
    print_safely()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] in (["--version"], ["-V"]):
        Console(highlight=False).print(f"maskfree {version('maskfree')}")
        sys.exit(0)
    sys.exit(guarded(_run, arguments))


def _run(arguments: Sequence[str]) -> int:
    """Run a command and return its status; `--help` and wrong arguments end in SystemExit."""
    general = arguments[1:2] in ([], ["-h"], ["--help"])  # help that needs no recipe or study
    if arguments[:1] in (["self-train"], ["distill"]) or (
        arguments[:1] and arguments[0] in NESTED and not general
    ):
        return NESTED[arguments[0]](arguments[1:])
    return (
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="maskfree", description=DESCRIPTION, args=arguments
        )
        or 0
    )

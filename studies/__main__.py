"""`python -m studies STUDY`: a paper's tables and figures on the data at hand."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from maskfree import run_dir
from maskfree.cli.common import keep_freed_memory, log_to_stderr, print_safely
from maskfree.cli.parsing import parse_settings
from maskfree.cli.stopping import guarded
from maskfree.config.extras import need
from studies.options import STUDIES

PROGRAM = "python -m studies"


def run_study(arguments: Sequence[str]) -> int:
    """Parse the name of a study and its options, and run it.

    Args:
        arguments: What follows `python -m studies`.

    Returns:
        The exit status.

    Raises:
        ValueError: There is no such study, or an extra is missing.
    """
    if not arguments or arguments[0] not in STUDIES:
        given = f"; not {arguments[0]!r}" if arguments else ""
        raise ValueError(f"give a study: {', '.join(STUDIES)}{given}")

    name = arguments[0]
    program = f"{PROGRAM} {name}"
    options = parse_settings(STUDIES[name], program, arguments[1:])
    need(program, *options.extras())

    log_to_stderr()
    keep_freed_memory()
    with run_dir.held(options.out):
        import_module(f"studies.{name}").reproduce(options)
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a study and exit with its status.

    Args:
        arguments: What follows `python -m studies`; by default the process's own.
    """
    print_safely()
    sys.exit(guarded(run_study, list(sys.argv[1:] if arguments is None else arguments), PROGRAM))


if __name__ == "__main__":
    main()

"""`python -m studies STUDY`: a paper's tables and figures on the data at hand."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import tyro

from maskfree.cli.common import BAD_INPUT, complain, keep_freed_memory, log_to_stderr

STUDIES = ("vilseg", "ovsegmentor", "clips4")


def main(arguments: Sequence[str]) -> None:
    """Parse the study's name and its options, and run it.

    Args:
        arguments: What follows `python -m studies`.
    """
    if not arguments or arguments[0] not in STUDIES:
        complain(f"give a study: {', '.join(STUDIES)}")
        sys.exit(BAD_INPUT)
    study = import_module(f"studies.{arguments[0]}")
    program = f"python -m studies {arguments[0]}"
    options = tyro.cli(study.Options, prog=program, args=list(arguments[1:]))

    log_to_stderr()
    keep_freed_memory()
    try:
        study.reproduce(options)
    except (ValueError, OSError) as error:
        complain(str(error))
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main(sys.argv[1:])

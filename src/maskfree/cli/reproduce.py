"""`maskfree reproduce`: the papers' studies on the data at hand."""

from __future__ import annotations

from collections.abc import Sequence

import tyro
from tyro.conf import Positional

from maskfree.cli.common import keep_freed_memory, log_to_stderr

STUDIES = ("vilseg",)


def reproduce(study: Positional[str]) -> int:
    """Run a paper's tables and figures on the data at hand; `maskfree reproduce vilseg --help` lists the settings.

    Args:
        study: vilseg.
    """
    return reproduce_study([study])


def reproduce_study(arguments: Sequence[str]) -> int:
    """Parse what follows `reproduce`: the options depend on the study, whose import takes seconds."""
    if not arguments or arguments[0] not in STUDIES:
        raise ValueError(f"give a study: {', '.join(STUDIES)}" + (f"; not {arguments[0]!r}" if arguments else ""))
    from maskfree.reproduce.vilseg import Options
    from maskfree.reproduce.vilseg import reproduce as run

    options = tyro.cli(Options, prog=f"maskfree reproduce {arguments[0]}", args=arguments[1:])
    log_to_stderr()
    keep_freed_memory()
    run(options)
    return 0

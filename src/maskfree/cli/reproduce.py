"""`maskfree reproduce`: the papers' studies on the data at hand."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import tyro
from tyro.conf import Positional

from maskfree import run_dir
from maskfree.cli.common import keep_freed_memory, log_to_stderr
from maskfree.extras import need


def reproduce(study: Positional[str]) -> int:
    """Run a paper's tables and figures on the data at hand; `maskfree reproduce vilseg --help` lists the settings.

    Args:
        study: vilseg, ovsegmentor or clips4.
    """
    return reproduce_study([study])


def reproduce_study(arguments: Sequence[str]) -> int:
    """Parse what follows `reproduce`: the options depend on the study."""
    from maskfree.reproduce.options import STUDIES

    if not arguments or arguments[0] not in STUDIES:
        raise ValueError(f"give a study: {', '.join(STUDIES)}" + (f"; not {arguments[0]!r}" if arguments else ""))
    name = arguments[0]
    options = tyro.cli(STUDIES[name], prog=f"maskfree reproduce {name}", args=arguments[1:])
    need(f"maskfree reproduce {name}", *options.extras())

    log_to_stderr()
    keep_freed_memory()
    with run_dir.held(options.out):
        import_module(f"maskfree.reproduce.{name}").reproduce(options)
    return 0

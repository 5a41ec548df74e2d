"""The `maskfree compare` command: compare rows of results."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

# Width of a line in a file or pipe, in characters.
_FILE_COLUMNS = 160


def compare(
    files: Positional[tuple[Path, ...]],
    out: Path | None = None,
    published: bool = False,
    differences: bool = False,
) -> int:
    """Compare rows of results in one table; only rows of one protocol may be ranked.

    Args:
        files: Files of rows that `maskfree evaluate` wrote; other files are left out.
        out: Chart of the rankings to write, .svg or .png.
        published: Also list the numbers that papers report for the same benchmarks, with their
            sources.
        differences: Print a ranking for each protocol instead, with the settings in which
            protocols differ and the IoU of each class.

    Returns:
        Exit status.
    """
    from maskfree.evaluation.reporting.compare import run

    # A file or pipe, unlike a terminal, has no width.
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_COLUMNS

    return run(files, out, published, console, differences)

"""The `maskfree compare` command: compare rows of results."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from tyro.conf import Positional


def compare(
    files: Positional[tuple[Path, ...]], out: Path | None = None, published: bool = False
) -> int:
    """Compare rows of results; a ranking contains only rows of one protocol and the same photos.

    Args:
        files: Files of rows that `maskfree evaluate` wrote.
        out: Chart of the rankings to write, .svg or .png.
        published: Also list the numbers that papers report for the same benchmarks, with their
            sources.

    Returns:
        Exit status.
    """
    from maskfree.evaluation.reporting.compare import run

    return run(files, out, published, Console())

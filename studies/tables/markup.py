"""What the tables of the pages share: rows of results, Markdown, numbers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"

Row = dict[str, Any]


def read_rows(folder: Path) -> list[Row]:
    """Read every file of results, by name; "file" tells where each came from."""
    return [
        {"file": path.name, **json.loads(path.read_text(encoding="utf-8"))}
        for path in sorted(folder.glob("*.json"))
    ]


def markdown(
    header: Sequence[str], lines: Sequence[Sequence[str]], alignment: str, command: str
) -> str:
    """Format a Markdown table.

    Without lines, say which command measures it. ALIGNMENT has l or r per column.
    """
    if not lines:
        return missing(command)
    rule = ["---:" if side == "r" else "---" for side in alignment]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


def missing(command: str) -> str:
    """Say that COMMAND has not been run."""
    return f"*Not measured yet; `{command}` measures it.*"


def pictures(files: Mapping[str, str], command: str) -> str:
    """Show the pictures of the results among FILES, with what they show;
    `studies/tables/__main__.py` copies them.
    """
    shown = [
        f"![{what}](images/results/{name})"
        for name, what in files.items()
        if (RESULTS / name).exists()
    ]
    return "\n\n".join(shown) or missing(command)


def percent(fraction: float | None) -> str:
    """Show a fraction in percent, without the sign."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def gain(fractions: Sequence[float]) -> str:
    """Show a mean difference in percent with its sign, and of several the standard deviation."""
    mean = f"{100 * statistics.mean(fractions):+.1f}"
    return f"{mean} ± {100 * statistics.stdev(fractions):.1f}" if len(fractions) > 1 else mean


def history(rows: Iterable[Row], name: str) -> tuple[list[Row], str]:
    """Return the rows of a file of history, which was copied by hand, and the line that says where
    they come from.
    """
    files = [row for row in rows if row.get("history") == name]
    return [point for file in files for point in file["rows"]], "\n\n".join(
        f"*{file['source']}*" for file in files
    )

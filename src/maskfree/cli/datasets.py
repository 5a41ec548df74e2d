"""The `maskfree datasets` command: list the benchmarks."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console


def datasets(root: Path | None = None) -> int:
    """List the benchmarks and their layout on disk.

    With --root, also tell whether they are there or what is missing.

    Args:
        root: Folder that contains the files of the benchmarks, or their folders.

    Returns:
        Exit status 0.
    """
    from maskfree.data.benchmarks.inventory import overview

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for row in overview(root):
        console.print(f"{row.name}: {row.title}")
        facts = {"layout": row.layout, "source": row.source}
        if root:
            facts["found"] = row.state

        for label, text in facts.items():
            if text:
                console.print(f"  {label}: {text}")

    return 0

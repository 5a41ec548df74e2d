"""The `maskfree models` command: list the models that have a name."""

from __future__ import annotations

from rich.console import Console


def models() -> int:
    """List the models that `--model` accepts by name.

    Returns:
        Exit status 0.
    """
    from maskfree.hub.catalog import MODELS

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for entry in MODELS.values():
        console.print(f"{entry.name}: {entry.description}")
    return 0

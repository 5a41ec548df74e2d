"""The `maskfree models` command: list the models that have a name."""

from __future__ import annotations

from rich.console import Console


def models() -> int:
    """List the models that `--model` accepts by name.

    Returns:
        Exit status 0.
    """
    from maskfree.hub.catalog import BUNDLED, DESCRIPTIONS, PUBLISHED

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for name, description in BUNDLED.items():
        console.print(f"{name}: {description}")
    for name, source in PUBLISHED.items():
        console.print(f"{name}: {DESCRIPTIONS[name]}; {source}, from Hugging Face when first used")
    return 0

"""The `maskfree models` command: list the models that have a name."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

_LONG = ("here", "METHOD:SOURCE", "license", "printed in")
# Columns in characters where the output is no terminal: a file or pipe gets whole rows.
_WIDTH_OF_FILES = 250


def models() -> int:
    """List the models that `--model` accepts by name, with license, size and published mIoU.

    Other models are named METHOD:SOURCE, for example naclip:openai/clip-vit-large-patch14.

    Returns:
        Exit status 0.
    """
    from maskfree.files.hugging_face import in_cache
    from maskfree.hub.catalog import METHODS, MODELS
    from maskfree.hub.catalog_table import HEADINGS, cells, size

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in (HEADINGS[0], "here", *HEADINGS[1:]):
        # A narrow terminal breaks only the long texts into several lines.
        table.add_column(heading, overflow="fold", no_wrap=heading not in _LONG)

    for entry in MODELS.values():
        here = f"{size(entry)} to fetch"
        if not entry.source:
            here = "in the package"
        elif in_cache(entry.source) and (not entry.also or in_cache(entry.also)):
            here = "in the cache"
        name, *rest = cells(entry)
        table.add_row(name, here, *rest)

    console = Console(highlight=False, markup=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    console.print(table)

    console.print(
        "\nmIoU in percent as published, each by its own protocol. Others: --model METHOD:SOURCE, "
        f"with METHOD one of {', '.join(METHODS)}; SOURCE a Hugging Face name, folder, released "
        "file or model of open_clip such as ViT-B-16/laion2b_s34b_b88k."
    )
    return 0

"""The table of models that have a name."""

from __future__ import annotations

from collections.abc import Sequence

from maskfree.hub.catalog import MODELS
from maskfree.hub.catalog_table import HEADINGS, cells, size
from studies.tables.markup import Row, markdown


def catalog(_: Sequence[Row]) -> str:
    """What `maskfree models` lists, with the size of the download."""
    lines = []
    for entry in MODELS.values():
        name, read_as, *rest = cells(entry)
        source = f"`{read_as}`"
        if not entry.source:
            source = read_as
        lines.append((f"`{name}`", entry.description, source, size(entry), *rest))

    header = (HEADINGS[0], "what", HEADINGS[1], "size", *HEADINGS[2:])
    return markdown(header, lines, "llllllrrrrrrl", "maskfree models")

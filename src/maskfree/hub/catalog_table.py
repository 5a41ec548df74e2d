"""The catalog as a table: columns that the command `models` and the pages share."""

from __future__ import annotations

from maskfree.hub.catalog_entry import CatalogEntry

HEADINGS = (
    "name",
    "METHOD:SOURCE",
    "license",
    "commercial",
    "patch",
    "side",
    "VOC-21",
    "VOC-20",
    "Ctx-60",
    "ADE",
    "printed in",
)
"""Headings of `cells`: mIoU in percent, sides in pixels; "Ctx-60" is PASCAL Context."""
NOT_PRINTED = "-"
"""Cell without a value: a number that is not in print."""


def cells(entry: CatalogEntry) -> tuple[str, ...]:
    """Write the columns of a model.

    Args:
        entry: Model of the catalog.

    Returns:
        One text for each of `HEADINGS`.
    """
    quality = entry.quality
    scores = (quality.voc21, quality.voc20, quality.context60, quality.ade)

    allowed = "no"
    if entry.commercial:
        allowed = "yes"

    read_as = NOT_PRINTED
    if entry.source:
        read_as = f"{entry.method}:{entry.source}"

    return (
        entry.name,
        read_as,
        entry.license,
        allowed,
        str(entry.patch_px),
        str(entry.side_px),
        *(NOT_PRINTED if score is None else f"{score:.1f}" for score in scores),
        quality.printed_in or NOT_PRINTED,
    )


def size(entry: CatalogEntry) -> str:
    """Write the size of a model's files.

    Args:
        entry: Model of the catalog.

    Returns:
        Megabytes, or gigabytes from 1 on.
    """
    if entry.size_mb >= 1000:
        return f"{entry.size_mb / 1000:.1f} GB"
    return f"{entry.size_mb} MB"

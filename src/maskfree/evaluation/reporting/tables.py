"""Rows of results as tables for the terminal: a line a run, a column a run for IoU by class, a line a threshold."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from maskfree.evaluation.reporting.results import Row
from maskfree.text.background import Background

SCORES = {
    "mIoU": "mean_iou",
    "pixel accuracy": "pixel_accuracy",
    "mean accuracy": "mean_accuracy",
    "fwIoU": "frequency_weighted_iou",
    "boundary F": "boundary_f",
}
"""The scores of a row by the heading of their column."""


def summary(rows: Sequence[Row]) -> Table:
    """A line per row: what ran and its scores in percent; below it, indented, the mean IoU of parts of its classes."""
    headings = headings_of(rows)
    table = Table("protocol", "names", "background", title=_title(rows))
    for heading in (*headings, "s/photo"):
        table.add_column(heading, justify="right")
    for row in rows:
        what = (row.protocol_name, row.protocol["names"], short_rule(row.protocol["background"]))
        table.add_row(*what, *score_cells(row, headings), f"{row.seconds_per_photo:.2f}")
        for part, value in row.parts.items():
            table.add_row(f"  {part.partition(' of ')[0]}", "", "", percent(value), style="dim")
    return table


def by_class(rows: Sequence[Row], labels: Sequence[str] = ()) -> Table:
    """IoU in percent, a line per class and a column per row; a dash where a class does not occur.

    LABELS head the columns; by default the names, background and, where they differ, protocols.
    """
    table = Table("IoU by class")
    for label in labels or _labels(rows):
        table.add_column(label, justify="right")
    for name in dict.fromkeys(name for row in rows for name in row.iou):
        table.add_row(name, *(percent(row.iou.get(name)) for row in rows))
    return table


def curve(rows: Sequence[Row]) -> Table:
    """A line per threshold of a sweep; none is singled out, since the best one was not known beforehand."""
    first = rows[0]
    table = Table(
        title=f"{_title(rows)}\nprotocol {first.protocol_name}, {first.protocol['names']} names"
    )
    for heading in ("threshold", "mIoU", "pixel accuracy"):
        table.add_column(heading, justify="right")
    for row in sorted(rows, key=threshold_of):
        table.add_row(f"{threshold_of(row):g}", percent(row.mean_iou), percent(row.pixel_accuracy))
    return table


def threshold_of(row: Row) -> float:
    """Return the threshold of a row's background rule.

    Raises:
        ValueError: its rule has none.
    """
    threshold = Background.parse(row.protocol["background"]).threshold
    if threshold is None:
        raise ValueError(
            f"the background rule {row.protocol['background']!r} has no threshold: a sweep needs one"
        )
    return threshold


def short_rule(rule: str) -> str:
    """Return a background rule for display: of a list of more than three words, their number.

    >>> short_rule("words:wall,sky,tree,sea")
    'words (4)'
    """
    kind, _, value = rule.partition(":")
    words = value.split(",")
    return f"words ({len(words)})" if kind == "words" and len(words) > 3 else rule


def headings_of(rows: Sequence[Row]) -> list[str]:
    """List the headings of scores, the boundary F only if a row has it."""
    return [
        name
        for name in SCORES
        if name != "boundary F" or any(row.boundary_f is not None for row in rows)
    ]


def score_cells(row: Row, headings: Sequence[str]) -> list[str]:
    """Return the row's scores under HEADINGS in percent."""
    return [percent(getattr(row, SCORES[heading])) for heading in headings]


def percent(fraction: float | None) -> str:
    """Return a score in [0, 1] as percent, a dash for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _title(rows: Sequence[Row]) -> str:
    first = rows[0]
    return f"{first.benchmark}, {first.num_photos} photos, model {first.model} ({first.weights_sha256[:8]})"


def _labels(rows: Sequence[Row]) -> list[str]:
    several = len({row.protocol_name for row in rows}) > 1
    labels = []
    for row in rows:
        parts = (row.protocol["names"], short_rule(row.protocol["background"]))
        labels.append("\n".join((row.protocol_name, *parts) if several else parts))
    return labels

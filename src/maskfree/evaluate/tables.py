"""Rows of results as tables for the terminal: one line a run, and IoU by class with a column a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from maskfree.evaluate.results import Row


def summary(rows: Sequence[Row]) -> Table:
    """A line per row: what ran and its scores in percent."""
    table = Table("names", "background", title=_title(rows))
    for heading in ("mIoU", "pixel accuracy", "mean accuracy", "s/photo"):
        table.add_column(heading, justify="right")
    for row in rows:
        scores = [_percent(value) for value in (row.mean_iou, row.pixel_accuracy, row.mean_accuracy)]
        table.add_row(row.protocol["names"], row.protocol["background"], *scores, f"{row.seconds_per_photo:.2f}")
    return table


def by_class(rows: Sequence[Row]) -> Table:
    """IoU in percent, a line per class and a column per row; a dash where a class does not occur."""
    table = Table("IoU by class")
    for row in rows:
        table.add_column(f"{row.protocol['names']}\n{row.protocol['background']}", justify="right")
    for name in dict.fromkeys(name for row in rows for name in row.iou):
        table.add_row(name, *(_percent(row.iou.get(name)) for row in rows))
    return table


def _title(rows: Sequence[Row]) -> str:
    first = rows[0]
    return f"{first.benchmark}, {first.num_photos} photos, model {first.model} ({first.weights_sha256[:8]})"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"

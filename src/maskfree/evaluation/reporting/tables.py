"""Results rows as terminal tables: summary by run, IoU by class, scores by threshold."""

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
"""Score fields of a row, by column heading."""


def summary(rows: Sequence[Row]) -> Table:
    """Tabulate runs: protocol and scores in percent, one row of the table for each.

    Mean IoU of parts of the classes and scores of halves of the photos stand below a run, indented.

    Args:
        rows: Results rows of one benchmark and model.

    Returns:
        The table.
    """
    headings = headings_of(rows)
    table = Table("protocol", "names", "background", title=_title(rows))
    for heading in (*headings, "s/photo"):
        table.add_column(heading, justify="right")

    for row in rows:
        what = (row.protocol_name, row.protocol["names"], short_rule(row.protocol["background"]))
        table.add_row(*what, *score_cells(row, headings), f"{row.seconds_per_photo:.2f}")
        if row.reliability is not None:
            error = percent(row.reliability["ece"])
            table.add_row("  calibration error", "", "", error, style="dim")
        for part, value in row.parts.items():
            table.add_row(f"  {part.partition(' of ')[0]}", "", "", percent(value), style="dim")
    return table


def by_class(rows: Sequence[Row], labels: Sequence[str] = ()) -> Table:
    """Tabulate IoU in percent, by class and run; a dash for a class that does not occur.

    Args:
        rows: Results rows.
        labels: Column headings; by default names, background and, where they differ, protocols.

    Returns:
        The table.
    """
    table = Table("IoU by class")
    for label in labels or _labels(rows):
        table.add_column(label, justify="right")

    # Classes of all rows, in the order of their first occurrence.
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row.iou)

    for name in names:
        table.add_row(name, *(percent(row.iou.get(name)) for row in rows))
    return table


def curve(rows: Sequence[Row]) -> Table:
    """Tabulate the scores of a sweep by threshold.

    The best threshold is not highlighted, since it was not known before the evaluation.

    Args:
        rows: Rows of one sweep, at least one.

    Returns:
        The table.
    """
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

    Args:
        row: Results row.

    Returns:
        The threshold.

    Raises:
        ValueError: The background rule has no threshold.
    """
    threshold = Background.parse(row.protocol["background"]).threshold
    if threshold is None:
        raise ValueError(
            f"the background rule {row.protocol['background']!r} has no threshold: "
            "a sweep needs one"
        )
    return threshold


def short_rule(rule: str) -> str:
    """Shorten a background rule for display: more than three words are replaced by their number.

    Args:
        rule: Background rule.

    Returns:
        The rule as displayed.

    Example:
        >>> short_rule("words:wall,sky,tree,sea")
        'words (4)'
    """
    kind, _, value = rule.partition(":")
    words = value.split(",")
    if kind == "words" and len(words) > 3:
        return f"words ({len(words)})"
    return rule


def headings_of(rows: Sequence[Row]) -> list[str]:
    """List the headings of the scores, with the boundary F-score only if a row has it.

    Args:
        rows: Results rows.

    Returns:
        Keys of `SCORES`.
    """
    headings = list(SCORES)
    if all(row.boundary_f is None for row in rows):
        headings.remove("boundary F")
    return headings


def score_cells(row: Row, headings: Sequence[str]) -> list[str]:
    """Format the scores of a row in percent.

    Args:
        row: Results row.
        headings: Keys of `SCORES`.

    Returns:
        A table cell for each heading.
    """
    return [percent(getattr(row, SCORES[heading])) for heading in headings]


def percent(fraction: float | None) -> str:
    """Format a score in percent.

    Args:
        fraction: Score in [0, 1], or None.

    Returns:
        Percent with one decimal; a dash for None.
    """
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _title(rows: Sequence[Row]) -> str:
    """Table title: benchmark, number of photos, model and short hash of its weights."""
    first = rows[0]
    return (
        f"{first.benchmark}, {first.num_photos} photos, "
        f"model {first.model} ({first.weights_sha256[:8]})"
    )


def _labels(rows: Sequence[Row]) -> list[str]:
    """Column headings that tell rows apart."""
    several = len({row.protocol_name for row in rows}) > 1

    labels = []
    for row in rows:
        parts = [row.protocol["names"], short_rule(row.protocol["background"])]
        if several:
            parts.insert(0, row.protocol_name)
        labels.append("\n".join(parts))
    return labels

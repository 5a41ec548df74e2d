"""Published scores as data, with their source and what is known of the protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

Trust = Literal["paper", "read", "third-party", "unmarked"]
# Metrics that are not in percent.
NOT_PERCENT = (
    "parameters, million",
    "photos/s",
    "classes with IoU above 20 %",
)
# Benchmarks by the name they have where a source does not say which of them it means.
_EITHER = {"context59": "context", "context60": "context"}


@dataclass(frozen=True)
class Published:
    """One published score; protocols differ from row to row, so rows are not ranked."""

    method: str
    """Name of the method."""
    benchmark: str
    """Name in `maskfree datasets`. Also "context" where the source does not say whether it counts
    background, "mean of 8" for the mean over all eight benchmarks of the field, and "any" for what
    depends on no benchmark.
    """
    metric: str
    """Name of the metric."""
    value: float
    """Value as printed: percent, except for the metrics of `NOT_PERCENT`."""
    spread: float | None
    """Value printed after the plus-minus sign, if any."""
    source: str
    """Paper or project that printed the value."""
    trust: Trust
    """Kind of source. paper: a table of the paper; read: README or issues of the project;
    third-party: a table of another paper; unmarked: notes.
    """
    protocol: Mapping[str, str] = field(default_factory=dict)
    """Known facts of the protocol: its name, background, classes, resolution, supervision, data and
    self training.
    """
    notes: tuple[str, ...] = ()
    """Notes on the table, the column and the row of the value."""

    def __post_init__(self) -> None:
        if self.trust not in get_args(Trust):
            raise ValueError(f"trust is {self.trust!r}: {', '.join(get_args(Trust))}")

    @property
    def facts(self) -> tuple[str, ...]:
        """Known facts of the protocol besides its name, and the notes.

        Returns:
            One text for each fact.
        """
        known = [f"{fact}: {value}" for fact, value in self.protocol.items() if fact != "name"]
        return (*known, *(note.rstrip(".") for note in self.notes))

    @property
    def shown(self) -> str:
        """The value as printed, without a trailing zero in the second decimal.

        Returns:
            Value, and spread if there is one.
        """
        text = f"{self.value:.2f}".removesuffix("0")
        if self.metric in NOT_PERCENT:
            text = f"{self.value:g}"
        if self.spread is not None:
            text += f" ± {self.spread:g}"
        return text


@cache
def published() -> tuple[Published, ...]:
    """Load all published scores.

    Returns:
        Scores in the order of their sources.
    """
    content = json.loads(
        files("maskfree.evaluation.reporting")
        .joinpath("published.json")
        .read_text(encoding="utf-8")
    )
    return tuple(row for table in content for row in _rows(table))


def published_for(benchmark: str) -> list[Published]:
    """List the published scores of a benchmark, including those that may belong to it.

    Args:
        benchmark: Name of the benchmark.

    Returns:
        Scores in the order of their sources.
    """
    names = {benchmark, _EITHER.get(benchmark, benchmark)}
    return [row for row in published() if row.benchmark in names]


def tables(numbers: Sequence[Published]) -> list[RenderableType]:
    """Tabulate scores: a table for each paper, and one per protocol for the other sources.

    Facts that all scores of a table share stand above it, other facts beside each score.

    Args:
        numbers: Scores to show, in this order.

    Returns:
        Headings and tables for the terminal.
    """
    shown: list[RenderableType] = []
    groups: dict[str, list[Published]] = {}

    # Other sources report under many protocols: one table for each.
    for number in numbers:
        head = number.source
        if number.trust != "paper":
            head = f"other sources, {number.protocol['name']}"
        groups.setdefault(head, []).append(number)

    for head, group in groups.items():
        names = list(dict.fromkeys(number.protocol["name"] for number in group))
        common = set(group[0].facts).intersection(*(number.facts for number in group))
        shared = [fact for fact in group[0].facts if fact in common]

        # The headings of other sources name their protocol already.
        facts = list(shared)
        if group[0].trust == "paper":
            facts.insert(0, ", ".join(names))
        shown.append(Text(": ".join(filter(None, (head, "; ".join(facts)))), style="italic"))
        shown.append(_table(group, len(names) > 1, shared))
    return shown


def _table(group: Sequence[Published], several: bool, shared: Sequence[str]) -> Table:
    """One line per method and one column per metric, named by protocol if there are several."""
    cells: dict[tuple[str, str, str], dict[str, str]] = {}

    # Used as an ordered set.
    headings: dict[str, None] = {}
    for number in group:
        heading = number.metric
        if several:
            heading += f", {number.protocol['name']}"
        headings[heading] = None
        besides = "; ".join(fact for fact in number.facts if fact not in shared)

        # The heading of a paper's table already names the source.
        source = {"paper": "", "read": number.source}.get(
            number.trust, f"{number.source} ({number.trust})"
        )
        cells.setdefault((number.method, besides, source), {})[heading] = number.shown

    table = Table("method")
    for heading in headings:
        table.add_column(heading, justify="right")

    # Columns without any text are left out.
    _, remarks, sources = zip(*cells, strict=True)
    if any(remarks):
        table.add_column("besides")
    if any(sources):
        table.add_column("source")

    for (method, besides, source), found in cells.items():
        row = [method, *(found.get(heading, "-") for heading in headings)]
        if any(remarks):
            row.append(besides)
        if any(sources):
            row.append(source)
        table.add_row(*row)

    return table


def _rows(table: Mapping[str, Any]) -> list[Published]:
    """Flatten a table of the file: facts of a row or column add to those of the table."""
    found = []
    for row in table["rows"]:
        for column, value in zip(table["columns"], row["values"], strict=True):
            if value is None:
                continue

            number, spread = value, None
            if isinstance(value, list):
                number, spread = value

            parts = (table, column, row)
            protocol: dict[str, str] = {}
            for part in parts:
                protocol |= part.get("protocol", {})

            found.append(
                Published(
                    method=row["method"],
                    benchmark=column["benchmark"],
                    metric=column["metric"],
                    value=float(number),
                    spread=spread,
                    source=table["source"],
                    trust=table["trust"],
                    protocol=protocol,
                    notes=tuple(part["note"] for part in parts if part.get("note")),
                )
            )

    return found

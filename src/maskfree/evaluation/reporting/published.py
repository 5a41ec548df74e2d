"""Published numbers as data: what papers and projects print, with the source and what is known of the protocol."""

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
NOT_PERCENT = (
    "parameters, million",
    "photos/s",
    "classes with IoU above 20 %",
)  # metrics; the others are in percent
_EITHER = {"context59": "context", "context60": "context"}  # where a source does not say which


@dataclass(frozen=True)
class Published:
    """One printed number. Protocols differ from row to row, so that rows are not ranked."""

    method: str
    benchmark: str
    """As `maskfree datasets` calls it; "context" where the source does not say whether it counts background, "mean of
    8" of all eight of the field, "any" for what depends on no benchmark."""
    metric: str
    value: float
    """As printed: percent, but for the metrics of `NOT_PERCENT`."""
    spread: float | None
    """Printed after ±."""
    source: str
    trust: Trust
    """paper: a paper's table; read: the project's README or issues; third-party: another's table; unmarked: notes."""
    protocol: Mapping[str, str] = field(default_factory=dict)
    """What is known: its name, background, classes, resolution, supervision, data, self training."""
    notes: tuple[str, ...] = ()
    """On the table, the column and the row that it stands in."""

    def __post_init__(self) -> None:
        if self.trust not in get_args(Trust):
            raise ValueError(f"trust is {self.trust!r}: {', '.join(get_args(Trust))}")

    @property
    def facts(self) -> tuple[str, ...]:
        """What is known of the protocol besides its name, and the notes."""
        known = [f"{fact}: {value}" for fact, value in self.protocol.items() if fact != "name"]
        return (*known, *(note.rstrip(".") for note in self.notes))

    @property
    def shown(self) -> str:
        """The number as printed, but for a zero in the second decimal."""
        text = (
            f"{self.value:g}"
            if self.metric in NOT_PERCENT
            else f"{self.value:.2f}".removesuffix("0")
        )
        return text if self.spread is None else f"{text} ± {self.spread:g}"


@cache
def published() -> tuple[Published, ...]:
    """List all rows, in the order of their sources."""
    content = json.loads(
        files("maskfree.evaluation.reporting")
        .joinpath("published.json")
        .read_text(encoding="utf-8")
    )
    return tuple(row for table in content for row in _rows(table))


def published_for(benchmark: str) -> list[Published]:
    """List the rows of one benchmark of ours, and those that may be of it."""
    names = {benchmark, _EITHER.get(benchmark, benchmark)}
    return [row for row in published() if row.benchmark in names]


def tables(numbers: Sequence[Published]) -> list[RenderableType]:
    """Show numbers in the order given: a table for each of a paper's, and one per protocol of what others report.

    What is known of all numbers of a table heads it, the rest stands beside each.
    """
    shown: list[RenderableType] = []
    groups: dict[str, list[Published]] = {}
    for number in numbers:
        other = f"other sources, {number.protocol['name']}"
        groups.setdefault(number.source if number.trust == "paper" else other, []).append(number)
    for head, group in groups.items():
        names = list(dict.fromkeys(number.protocol["name"] for number in group))
        shared = [fact for fact in group[0].facts if all(fact in number.facts for number in group)]
        facts = [*([", ".join(names)] if group[0].trust == "paper" else []), *shared]
        shown.append(Text(": ".join(filter(None, (head, "; ".join(facts)))), style="italic"))
        shown.append(_table(group, len(names) > 1, shared))
    return shown


def _table(group: Sequence[Published], several: bool, shared: Sequence[str]) -> Table:
    """Lay out a line per method and a column per metric, which names its protocol if there are SEVERAL."""
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    headings: dict[str, None] = {}
    for number in group:
        heading = f"{number.metric}, {number.protocol['name']}" if several else number.metric
        headings[heading] = None
        besides = "; ".join(fact for fact in number.facts if fact not in shared)
        source = {"paper": "", "read": number.source}.get(
            number.trust, f"{number.source} ({number.trust})"
        )
        cells.setdefault((number.method, besides, source), {})[heading] = number.shown
    table = Table("method")
    for heading in headings:
        table.add_column(heading, justify="right")
    titles = {1: "besides", 2: "source"}
    remarks = [i for i in titles if any(line[i] for line in cells)]
    for i in remarks:
        table.add_column(titles[i])
    for line, found in cells.items():
        table.add_row(
            line[0], *(found.get(heading, "-") for heading in headings), *(line[i] for i in remarks)
        )
    return table


def _rows(table: Mapping[str, Any]) -> list[Published]:
    """Flatten a table of the file: what is said of a row or column adds to what is said of the table."""
    found = []
    for row in table["rows"]:
        for column, value in zip(table["columns"], row["values"], strict=True):
            if value is None:
                continue
            number, spread = value if isinstance(value, list) else (value, None)
            parts = (table, column, row)
            found.append(
                Published(
                    method=row["method"],
                    benchmark=column["benchmark"],
                    metric=column["metric"],
                    value=float(number),
                    spread=spread,
                    source=table["source"],
                    trust=table["trust"],
                    protocol={
                        fact: text
                        for part in parts
                        for fact, text in part.get("protocol", {}).items()
                    },
                    notes=tuple(part["note"] for part in parts if part.get("note")),
                )
            )
    return found

"""Tables and charts of `maskfree compare`: all rows in one table, or each ranking by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from maskfree.evaluation.reporting import charts
from maskfree.evaluation.reporting.chart_style import check_suffix
from maskfree.evaluation.reporting.published import published_for
from maskfree.evaluation.reporting.published import tables as published_tables
from maskfree.evaluation.reporting.rankings import (
    SHOWN_HASH,
    Ranking,
    by_benchmark,
    protocol_labels,
    rank_rows,
    refusal,
    row_order,
    titles,
)
from maskfree.evaluation.reporting.results import Row
from maskfree.evaluation.reporting.row_files import read_rows
from maskfree.evaluation.reporting.tables import (
    by_class,
    headings_of,
    percent,
    score_cells,
    short_rule,
)
from maskfree.files.outputs import Outputs

NOT_RANKED = "as published, each by its own protocol; not ranked with the rows above"
# Largest number of skipped files of one kind whose names are printed.
_MAX_SKIPPED_NAMES = 3
# Smallest width of a column of text, in characters.
_MIN_COLUMN = 6


def overview(rankings: Sequence[Ranking]) -> list[RenderableType]:
    """Tabulate all rows in one table, by benchmark and mIoU, with a note on what may be ranked.

    Args:
        rankings: Rankings, sorted by benchmark.

    Returns:
        Table and note for the terminal.
    """
    labels = protocol_labels(rankings)
    has_protocols = len(rankings) > len(by_benchmark(rankings))
    models = _model_labels(rankings)

    lines: list[tuple[Row, str]] = []
    for ranking, label in zip(rankings, labels, strict=True):
        lines += [(row, label) for row in ranking.rows]
    lines.sort(key=lambda line: (line[0].benchmark, *row_order(line[0])))

    table = _overview_table(has_protocols)
    before = lines[0][0].benchmark
    for row, label in lines:
        # An empty line between benchmarks.
        if row.benchmark != before:
            table.add_section()
        before = row.benchmark

        cells = [row.benchmark, models[row.model, row.weights_sha256]]
        if has_protocols:
            cells.append(label)
        cells += [row.protocol["names"], short_rule(row.protocol["background"])]
        table.add_row(*cells, percent(row.mean_iou), percent(row.pixel_accuracy))

    return [table, Text(_note(rankings))]


def tables(rankings: Sequence[Ranking], published: bool = False) -> list[RenderableType]:
    """Tabulate rankings by benchmark, with the reason why rows are not ranked together.

    Args:
        rankings: Rankings, sorted by benchmark.
        published: Whether to add published scores below each benchmark.

    Returns:
        Titles and tables for the terminal.
    """
    shown: list[RenderableType] = []
    for benchmark, group in by_benchmark(rankings):
        for ranking, title in zip(group, titles(group), strict=True):
            shown += [Text(title, style="bold"), _scores(ranking.rows)]

            # Classes are compared only between runs.
            if len(ranking.rows) > 1:
                labels = [
                    f"{place}\n{row.model}" for place, row in enumerate(ranking.rows, start=1)
                ]
                shown.append(by_class(ranking.rows, labels))

        if line := refusal(group):
            shown.append(Text(f"{benchmark}: {line}", style="yellow"))

        if published:
            shown += _published_for(benchmark)
        shown.append("")
    return shown


def panels(rankings: Sequence[Ranking]) -> list[charts.Panel]:
    """Convert rankings to panels of a chart.

    Args:
        rankings: Rankings, sorted by benchmark.

    Returns:
        A panel for each ranking.
    """
    found = []
    for ranking, title in zip(rankings, titles(rankings), strict=True):
        labels = [f"{row.model} ({row.weights_sha256[:SHOWN_HASH]})" for row in ranking.rows]
        scores = [row.mean_iou for row in ranking.rows]
        found.append(charts.Panel(title, labels, scores))
    return found


def run(
    files: Sequence[Path],
    out: Path | None,
    published: bool,
    console: Console,
    differences: bool = False,
) -> int:
    """Run `maskfree compare`: print the rows of files and optionally draw their rankings.

    Args:
        files: JSON files of results.
        out: Image to write, PNG or SVG; None draws nothing.
        published: Whether to add published scores of each benchmark.
        console: Console to print to.
        differences: Whether to print each ranking by itself, with the settings that differ.

    Returns:
        Exit status.

    Raises:
        ValueError: A file is broken, none is a results row, or `out` is not an image.
        OSError: A file cannot be read or written.
    """
    # Fail before any work if the image cannot be written or would replace an input.
    if out:
        check_suffix(out)
        Outputs(files).add(out)

    rows, skipped = read_rows(files)
    if not rows:
        kinds = _skipped(skipped, len(files)) or "give the files of `maskfree evaluate`"
        raise ValueError(f"no rows of results to compare; {kinds}")

    rankings = rank_rows(rows)
    if out:
        charts.ranking_bars(panels(rankings), out)

    if differences:
        shown = tables(rankings, published)
    else:
        shown = overview(rankings)
        if published:
            shown += _published(rankings)
    for each in shown:
        console.print(each)

    if skipped:
        console.print(Text(f"skipped ({_skipped(skipped, _MAX_SKIPPED_NAMES)})", style="dim"))
    return 0


def _published(rankings: Sequence[Ranking]) -> list[RenderableType]:
    """Published scores of each benchmark."""
    shown: list[RenderableType] = []
    for benchmark, _ in by_benchmark(rankings):
        shown += _published_for(benchmark)
    return shown


def _published_for(benchmark: str) -> list[RenderableType]:
    """Published scores of one benchmark below a heading, and an empty line."""
    numbers = published_for(benchmark)
    line = NOT_RANKED
    if not numbers:
        line = "no published numbers are known"
    return [Text(f"{benchmark}: {line}", style="bold"), *published_tables(numbers)]


def _skipped(skipped: Mapping[str, Sequence[str]], max_names: int) -> str:
    """Names of skipped files by the reason; of many files only the first one is named."""
    texts = []
    for reason, names in skipped.items():
        shown = ", ".join(names)
        if len(names) > max_names:
            shown = f"{names[0]} and {len(names) - 1} more"
        texts.append(f"{reason}: {shown}")
    return "; ".join(texts)


def _model_labels(rankings: Sequence[Ranking]) -> dict[tuple[str, str], str]:
    """Label of each model by name and weights; models of one name have the hash of their
    weights.
    """
    weights_of: dict[str, set[str]] = {}
    for ranking in rankings:
        for row in ranking.rows:
            weights_of.setdefault(row.model, set()).add(row.weights_sha256)

    labels = {}
    for name, hashes in weights_of.items():
        for weights in hashes:
            labels[name, weights] = name
            if len(hashes) > 1:
                labels[name, weights] += f" {weights[:SHOWN_HASH]}"
    return labels


def _overview_table(has_protocols: bool) -> Table:
    """Empty table of all rows, with a column for protocols if there are several."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    headings = ["benchmark", "model", "protocol", "names", "background"]
    if not has_protocols:
        headings.remove("protocol")

    # A narrow terminal breaks these into several lines, and never cuts a score.
    for heading in headings:
        table.add_column(heading, overflow="fold", min_width=_MIN_COLUMN)
    for heading in ("mIoU", "accuracy"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    return table


def _note(rankings: Sequence[Ranking]) -> str:
    """What may be ranked in the table of all rows."""
    if len(rankings) == len(by_benchmark(rankings)):
        return "Scores in percent. The rows of a benchmark are of one protocol and may be ranked."

    num_rows = sum(len(ranking.rows) for ranking in rankings)
    return (
        f"Scores in percent. {num_rows} rows by {len(rankings)} protocols: only rows that agree in "
        "benchmark, protocol, names and background may be ranked. --differences shows in which "
        "settings protocols differ."
    )


def _scores(rows: Sequence[Row]) -> Table:
    """Tabulate the scores of a ranking."""
    headings = headings_of(rows)
    table = Table("", "model", "weights")
    for heading in (*headings, "s/photo"):
        table.add_column(heading, justify="right")

    for place, row in enumerate(rows, start=1):
        who = (f"{place}", row.model, row.weights_sha256[:SHOWN_HASH])
        table.add_row(*who, *score_cells(row, headings), f"{row.seconds_per_photo:.2f}")
    return table

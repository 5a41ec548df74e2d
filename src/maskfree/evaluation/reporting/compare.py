"""Compare results rows: `maskfree compare` ranks only rows measured under equal conditions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from maskfree.evaluation.reporting import charts
from maskfree.evaluation.reporting.published import published_for
from maskfree.evaluation.reporting.published import tables as published_tables
from maskfree.evaluation.reporting.results import FORMAT, Row, read_row
from maskfree.evaluation.reporting.tables import by_class, headings_of, score_cells, short_rule
from maskfree.files.atomic import read_json
from maskfree.files.outputs import Outputs
from maskfree.text.background import Background

NOT_RANKED = "as published, each by its own protocol; not ranked with the rows above"
# A file with one of these keys is meant to be a results row.
_MARKS = (
    "mean_iou",
    "protocol",
    "iou",
    "weights_sha256",
)
# Digits of a hash in tables.
_SHOWN_HASH = 8


@dataclass(frozen=True)
class Ranking:
    """Rows that are comparable: same benchmark, photos, names and protocol."""

    benchmark: str
    """Name of the benchmark."""
    conditions: Mapping[str, Any]
    """Conditions that the rows share."""
    rows: tuple[Row, ...]
    """Rows by decreasing mIoU."""


def compare(rows: Iterable[Row]) -> list[Ranking]:
    """Group rows into rankings, so that rows under different conditions are never ranked together.

    Args:
        rows: Results rows of any benchmarks.

    Returns:
        Rankings, sorted by benchmark, size and conditions, never by a score.
    """
    groups: dict[tuple[str, Hashable], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.benchmark, _frozen(_telling(conditions(row)))), []).append(row)

    rankings = []
    for (benchmark, _), group in groups.items():
        # Ties are broken by name, weights and date, so that the order does not vary.
        ordered = sorted(
            group, key=lambda row: (-_score(row), row.model, row.weights_sha256, row.date)
        )
        rankings.append(Ranking(benchmark, conditions(ordered[0]), tuple(ordered)))

    return sorted(rankings, key=_place)


def conditions(row: Row) -> dict[str, Any]:
    """Return what a row's scores depend on besides the model: photos, names and protocol fields.

    Choices that a protocol leaves to the model (prompts, smoothing, class prior) are included,
    since the row spells them out. The protocol's name is not, since the fields say the same.

    Args:
        row: Results row.

    Returns:
        Conditions by name.
    """
    photos = {
        "num_photos": row.num_photos,
        "files_sha256": row.files_sha256,
        "names_sha256": row.names_sha256,
    }
    return photos | dict(row.protocol)


def differences(rankings: Sequence[Ranking]) -> dict[str, list[str]]:
    """Find the conditions in which rankings of one benchmark differ.

    A hash is left out if what it stands for visibly differs, too: the number of photos or the name
    set.

    Args:
        rankings: Rankings of one benchmark.

    Returns:
        Abbreviated values of each differing condition.
    """
    found = {}
    for field in dict.fromkeys(field for ranking in rankings for field in ranking.conditions):
        values = list(dict.fromkeys(filter(None, _texts(field, rankings))))
        if len(values) > 1:
            found[field] = values

    # A hash adds nothing if the visible condition tells the rankings apart as well.
    for visible, digest in (("num_photos", "files_sha256"), ("names", "names_sha256")):
        if visible in found and len(found[visible]) >= len(found.get(digest, ())):
            found.pop(digest, None)
    return found


def titles(rankings: Sequence[Ranking]) -> list[str]:
    """Title each ranking by its benchmark and by what distinguishes it from the benchmark's others.

    Args:
        rankings: Rankings, sorted by benchmark.

    Returns:
        A title for each ranking.
    """
    heads = []
    for _, group in _by_benchmark(rankings):
        # These conditions are always shown, the others only where they differ.
        always = ("num_photos", "names", "background")
        apart = [field for field in differences(group) if field not in always]
        texts = {field: _texts(field, group) for field in (*always, *apart)}

        for i, ranking in enumerate(group):
            # Rows with equal conditions may name their protocol differently.
            called = "/".join(dict.fromkeys(row.protocol_name for row in ranking.rows))

            facts = [
                f"{ranking.benchmark}, {ranking.conditions['num_photos']} photos, protocol {called}"
            ]
            facts += [
                f"{field}: {texts[field][i]}" for field in (*always[1:], *apart) if texts[field][i]
            ]
            heads.append(", ".join(facts))

    return heads


def refusal(rankings: Sequence[Ranking]) -> str:
    """Explain why rows of one benchmark are not in one ranking.

    Args:
        rankings: Rankings of one benchmark.

    Returns:
        One line; empty if there is a single ranking.
    """
    apart = ", ".join(
        f"{field} ({' | '.join(values)})" for field, values in differences(rankings).items()
    )
    return f"not ranked together: {apart}" if len(rankings) > 1 else ""


def read_rows(files: Sequence[Path]) -> tuple[list[Row], dict[str, list[str]]]:
    """Read results rows from files, each file once, and skip files of other kinds.

    Args:
        files: JSON files.

    Returns:
        Rows, and the names of the skipped files by reason.

    Raises:
        ValueError: A file is not JSON, or is meant to be a row of this format and is broken.
        OSError: A file cannot be read.
    """
    rows, skipped = [], {}
    for path in dict.fromkeys(files):
        content = read_json(path)
        reason = _no_row(content)
        if reason:
            skipped.setdefault(reason, []).append(path.name)
        else:
            rows.append(_checked(read_row(path), path))

    return rows, skipped


def tables(rankings: Sequence[Ranking], published: bool = False) -> list[RenderableType]:
    """Tabulate rankings by benchmark, with the reason why rows are not ranked together.

    Args:
        rankings: Rankings, sorted by benchmark.
        published: Whether to add published scores below each benchmark.

    Returns:
        Titles and tables for the terminal.
    """
    shown: list[RenderableType] = []
    for benchmark, group in _by_benchmark(rankings):
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
            numbers = published_for(benchmark)
            line = NOT_RANKED if numbers else "no published numbers are known"
            shown += [Text(f"{benchmark}: {line}", style="bold"), *published_tables(numbers)]
        shown.append("")
    return shown


def panels(rankings: Sequence[Ranking]) -> list[charts.Panel]:
    """Convert rankings to panels of a chart.

    Args:
        rankings: Rankings, sorted by benchmark.

    Returns:
        A panel for each ranking.
    """
    return [
        charts.Panel(
            title,
            [f"{row.model} ({row.weights_sha256[:_SHOWN_HASH]})" for row in ranking.rows],
            [row.mean_iou for row in ranking.rows],
        )
        for ranking, title in zip(rankings, titles(rankings), strict=True)
    ]


def run(files: Sequence[Path], out: Path | None, published: bool, console: Console) -> int:
    """Run `maskfree compare`: print the rankings of files and optionally draw them.

    Args:
        files: JSON files of results.
        out: Image to write, PNG or SVG; None draws nothing.
        published: Whether to add published scores below each benchmark.
        console: Console to print to.

    Returns:
        Exit status.

    Raises:
        ValueError: A file is broken, none is a results row, or `out` is not an image.
        OSError: A file cannot be read or written.
    """
    # Fail before any work if the image cannot be written or would replace an input.
    if out:
        charts.check_suffix(out)
        Outputs(files).add(out)

    rows, skipped = read_rows(files)
    notes = "; ".join(f"{reason}: {', '.join(names)}" for reason, names in skipped.items())
    if not rows:
        raise ValueError(
            f"no rows of results to compare; {notes or 'give the files of `maskfree evaluate`'}"
        )

    rankings = compare(rows)
    if out:
        charts.ranking_bars(panels(rankings), out)
    for shown in tables(rankings, published):
        console.print(shown)

    if notes:
        console.print(Text(f"skipped ({notes})", style="dim"))
    return 0


def _no_row(content: Any) -> str:
    """Reason why a file is not meant to be a row of this format; empty if it is."""
    if not isinstance(content, dict) or not content.keys() & set(_MARKS):
        kind = content.get("kind") if isinstance(content, dict) else None
        return f"{kind}, not a row" if isinstance(kind, str) else "no row of results"
    return "" if content.get("format") == FORMAT else f"row of another format than {FORMAT}"


def _checked(row: Row, path: Path) -> Row:
    """Check the fields that a comparison reads."""
    if not (isinstance(row.protocol, dict) and {"names", "background"} <= row.protocol.keys()):
        raise ValueError(
            f"{path} does not say its protocol: it needs at least names and background"
        )

    if not isinstance(row.iou, dict):
        raise ValueError(f"{path}: iou must be a value for each class, not {row.iou!r}")

    try:
        Background.parse(row.protocol["background"])
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error

    # Scores are fractions: a file in percent would rank first.
    for name, value in {
        "mean_iou": row.mean_iou,
        "pixel_accuracy": row.pixel_accuracy,
        **row.iou,
    }.items():
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise ValueError(f"{path}: {name} is {value!r}, not a score in [0, 1]")

    return row


def _telling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out fields that have no effect because another field disables them."""
    idle = set()

    # A cosine has no scale, and only the product of softmaxes selects classes.
    if fields.get("score") == "cosine":
        idle |= {"logit_scale"}
    if fields.get("score") in ("cosine", "softmax"):
        idle |= {"top_classes"}
    if fields.get("class_prior") == 0:
        idle |= {"class_prior_share", "class_prior_max"}

    # Different spellings of one background rule become equal.
    kept = {field: value for field, value in fields.items() if field not in idle}
    return kept | {"background": str(Background.parse(fields["background"]))}


def _frozen(value: Any) -> Hashable:
    """Convert a JSON value to a hashable one, in which 1 equals 1.0."""
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(each)) for key, each in value.items()))
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _place(ranking: Ranking) -> tuple[str, int, str, str, str]:
    """Sort key of a ranking: benchmark, size, then conditions."""
    shared = ranking.conditions
    rest = json.dumps(shared, sort_keys=True)

    return (
        ranking.benchmark,
        -len(ranking.rows),
        str(shared["names"]),
        str(shared["background"]),
        rest,
    )


def _score(row: Row) -> float:
    """Sort key of a row; rows without a score come last."""
    return -math.inf if row.mean_iou is None else row.mean_iou


def _by_benchmark(rankings: Sequence[Ranking]) -> list[tuple[str, list[Ranking]]]:
    """Group sorted rankings by benchmark."""
    return [
        (name, list(group))
        for name, group in groupby(rankings, key=lambda ranking: ranking.benchmark)
    ]


def _texts(field: str, rankings: Sequence[Ranking]) -> list[str]:
    """Abbreviate a condition of each ranking; a hash tells equal texts apart; empty if disabled."""
    every = [(ranking.conditions, _telling(ranking.conditions)) for ranking in rankings]
    values = {_frozen(telling.get(field)): telling.get(field) for _, telling in every}
    brief = {key: _brief(field, value) for key, value in values.items()}
    alike = [text for text in brief.values() if list(brief.values()).count(text) > 1]

    # Different values with equal texts get a hash.
    for key, value in values.items():
        if brief[key] in alike:
            brief[key] += " " + hashlib.sha256(json.dumps(value).encode()).hexdigest()[:6]

    idle = [field in fields and field not in telling for fields, telling in every]

    return [
        "" if off else brief[_frozen(telling.get(field))]
        for off, (_, telling) in zip(idle, every, strict=True)
    ]


def _brief(field: str, value: Any) -> str:
    """Abbreviate the value of a condition."""
    if value is None:
        return "not recorded"
    if field.endswith("sha256"):
        return str(value)[:_SHOWN_HASH]

    if isinstance(value, list | tuple):
        return f"{value[0]!r}" if len(value) == 1 else f"{len(value)} of them"
    return short_rule(value) if field == "background" else f"{value}"


def _scores(rows: Sequence[Row]) -> Table:
    """Tabulate the scores of a ranking."""
    headings = headings_of(rows)
    table = Table("", "model", "weights")
    for heading in (*headings, "s/photo"):
        table.add_column(heading, justify="right")

    for place, row in enumerate(rows, start=1):
        who = (f"{place}", row.model, row.weights_sha256[:_SHOWN_HASH])
        table.add_row(*who, *score_cells(row, headings), f"{row.seconds_per_photo:.2f}")
    return table

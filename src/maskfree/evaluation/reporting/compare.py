"""`maskfree compare`: rows of results side by side, and in one ranking only if they were measured in the same way."""

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
_MARKS = (
    "mean_iou",
    "protocol",
    "iou",
    "weights_sha256",
)  # a file with one of them means to be a row
_SHOWN_HASH = 8


@dataclass(frozen=True)
class Ranking:
    """Rows that compare: one benchmark, the same photos and names, the same protocol."""

    benchmark: str
    conditions: Mapping[str, Any]
    """What they share."""
    rows: tuple[Row, ...]
    """Highest mIoU first."""


def compare(rows: Iterable[Row]) -> list[Ranking]:
    """Put rows into rankings, so that rows which differ in a condition never share one.

    Rankings are in the order of their benchmarks' names and their size, then of their conditions; never of a score.
    """
    groups: dict[tuple[str, Hashable], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.benchmark, _frozen(_telling(conditions(row)))), []).append(row)
    rankings = []
    for (benchmark, _), group in groups.items():
        ordered = sorted(
            group, key=lambda row: (-_score(row), row.model, row.weights_sha256, row.date)
        )
        rankings.append(Ranking(benchmark, conditions(ordered[0]), tuple(ordered)))
    return sorted(rankings, key=_place)


def conditions(row: Row) -> dict[str, Any]:
    """What a row's scores depend on besides the model: photos, names, and all fields of its protocol.

    Choices that a protocol leaves to the model (prompts, smoothing, class prior) are among them:
    the row spells them out.
    The name of the protocol is not, since it says nothing that the fields do not.
    """
    photos = {
        "num_photos": row.num_photos,
        "files_sha256": row.files_sha256,
        "names_sha256": row.names_sha256,
    }
    return photos | dict(row.protocol)


def differences(rankings: Sequence[Ranking]) -> dict[str, list[str]]:
    """Name the conditions in which rankings of one benchmark differ, with their values in brief.

    A hash is left out where what it stands for differs visibly too: the number of photos, the set of names.
    """
    found = {}
    for field in dict.fromkeys(field for ranking in rankings for field in ranking.conditions):
        values = list(dict.fromkeys(filter(None, _texts(field, rankings))))
        if len(values) > 1:
            found[field] = values
    for visible, digest in (("num_photos", "files_sha256"), ("names", "names_sha256")):
        if visible in found and len(found[visible]) >= len(found.get(digest, ())):
            found.pop(digest, None)
    return found


def titles(rankings: Sequence[Ranking]) -> list[str]:
    """Head each ranking with its benchmark, and with what sets it apart from the benchmark's other rankings."""
    heads = []
    for _, group in _by_benchmark(rankings):
        always = ("num_photos", "names", "background")
        apart = [field for field in differences(group) if field not in always]
        texts = {field: _texts(field, group) for field in (*always, *apart)}
        for i, ranking in enumerate(group):
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
    """Say in a line why rankings of one benchmark are apart; empty if there is one."""
    apart = ", ".join(
        f"{field} ({' | '.join(values)})" for field, values in differences(rankings).items()
    )
    return f"not ranked together: {apart}" if len(rankings) > 1 else ""


def read_rows(files: Sequence[Path]) -> tuple[list[Row], dict[str, list[str]]]:
    """Read the rows among FILES, each file once, and list the others by the reason for which they are skipped.

    Raises:
        ValueError, OSError: a file cannot be read or is no JSON, or means to be a row of this format and is broken.
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
    """Tables of the rankings, benchmark by benchmark, what keeps them apart, and PUBLISHED numbers beneath."""
    shown: list[RenderableType] = []
    for benchmark, group in _by_benchmark(rankings):
        for ranking, title in zip(group, titles(group), strict=True):
            shown += [Text(title, style="bold"), _scores(ranking.rows)]
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
    """Return the rankings as panels of a chart."""
    return [
        charts.Panel(
            title,
            [f"{row.model} ({row.weights_sha256[:_SHOWN_HASH]})" for row in ranking.rows],
            [row.mean_iou for row in ranking.rows],
        )
        for ranking, title in zip(rankings, titles(rankings), strict=True)
    ]


def run(files: Sequence[Path], out: Path | None, published: bool, console: Console) -> int:
    """Print FILES' rankings to CONSOLE, draw them to OUT, and return the exit status.

    Raises:
        ValueError, OSError: a file is broken, none of them is a row, or OUT is no picture.
    """
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
    """Why CONTENT does not mean to be a row of this format; empty if it does."""
    if not isinstance(content, dict) or not content.keys() & set(_MARKS):
        kind = content.get("kind") if isinstance(content, dict) else None
        return f"{kind}, not a row" if isinstance(kind, str) else "no row of results"
    return "" if content.get("format") == FORMAT else f"row of another format than {FORMAT}"


def _checked(row: Row, path: Path) -> Row:
    """See that what the comparison reads is there."""
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
    for name, value in {
        "mean_iou": row.mean_iou,
        "pixel_accuracy": row.pixel_accuracy,
        **row.iou,
    }.items():
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise ValueError(f"{path}: {name} is {value!r}, not a score in [0, 1]")
    return row


def _telling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out fields that do nothing, because another one switches them off."""
    idle = set()
    if fields.get("score") == "cosine":
        idle |= {"logit_scale"}
    if fields.get("score") in ("cosine", "softmax"):
        idle |= {"top_classes"}
    if fields.get("class_prior") == 0:
        idle |= {"class_prior_share", "class_prior_max"}
    kept = {field: value for field, value in fields.items() if field not in idle}
    return kept | {"background": str(Background.parse(fields["background"]))}


def _frozen(value: Any) -> Hashable:
    """Return a JSON value in a form that can be a key; 1 and 1.0 are the same one."""
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(each)) for key, each in value.items()))
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _place(ranking: Ranking) -> tuple[str, int, str, str, str]:
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
    return -math.inf if row.mean_iou is None else row.mean_iou


def _by_benchmark(rankings: Sequence[Ranking]) -> list[tuple[str, list[Ranking]]]:
    return [
        (name, list(group))
        for name, group in groupby(rankings, key=lambda ranking: ranking.benchmark)
    ]


def _texts(field: str, rankings: Sequence[Ranking]) -> list[str]:
    """Show a condition of each ranking in few letters, with a hash where others would look alike; empty if idle."""
    every = [(ranking.conditions, _telling(ranking.conditions)) for ranking in rankings]
    values = {_frozen(telling.get(field)): telling.get(field) for _, telling in every}
    brief = {key: _brief(field, value) for key, value in values.items()}
    alike = [text for text in brief.values() if list(brief.values()).count(text) > 1]
    for key, value in values.items():
        if brief[key] in alike:
            brief[key] += " " + hashlib.sha256(json.dumps(value).encode()).hexdigest()[:6]
    idle = [field in fields and field not in telling for fields, telling in every]
    return [
        "" if off else brief[_frozen(telling.get(field))]
        for off, (_, telling) in zip(idle, every, strict=True)
    ]


def _brief(field: str, value: Any) -> str:
    if value is None:
        return "not recorded"
    if field.endswith("sha256"):
        return str(value)[:_SHOWN_HASH]
    if isinstance(value, list | tuple):
        return f"{value[0]!r}" if len(value) == 1 else f"{len(value)} of them"
    return short_rule(value) if field == "background" else f"{value}"


def _scores(rows: Sequence[Row]) -> Table:
    headings = headings_of(rows)
    table = Table("", "model", "weights")
    for heading in (*headings, "s/photo"):
        table.add_column(heading, justify="right")
    for place, row in enumerate(rows, start=1):
        who = (f"{place}", row.model, row.weights_sha256[:_SHOWN_HASH])
        table.add_row(*who, *score_cells(row, headings), f"{row.seconds_per_photo:.2f}")
    return table

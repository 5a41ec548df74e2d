"""Rankings of results rows: only rows that were measured under equal conditions share one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskfree.evaluation.reporting.results import Row
from maskfree.evaluation.reporting.tables import short_rule
from maskfree.text.background import Background

SHOWN_HASH = 8
"""Digits of a hash in tables."""

# Digits of the hash of a protocol's settings; all of them, where two begin with the same.
_LABEL_DIGITS = 4
_NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Ranking:
    """Rows that are comparable: same benchmark, photos, names and protocol."""

    benchmark: str
    """Name of the benchmark."""
    conditions: Mapping[str, Any]
    """Conditions that the rows share."""
    rows: tuple[Row, ...]
    """Rows by decreasing mIoU."""


def rank_rows(rows: Iterable[Row]) -> list[Ranking]:
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
        ordered = sorted(group, key=row_order)
        rankings.append(Ranking(benchmark, conditions(ordered[0]), tuple(ordered)))

    return sorted(rankings, key=_place)


def row_order(row: Row) -> tuple[bool, float, str, str, str]:
    """Sort key of rows: the highest mIoU first, rows without a score last.

    Args:
        row: Results row.

    Returns:
        The key; ties are broken by name, weights and date, so that the order does not vary.
    """
    has_no_score = row.mean_iou is None
    return (has_no_score, -(row.mean_iou or 0), row.model, row.weights_sha256, row.date)


def by_benchmark(rankings: Sequence[Ranking]) -> list[tuple[str, list[Ranking]]]:
    """Group rankings by benchmark.

    Args:
        rankings: Rankings, sorted by benchmark.

    Returns:
        Name and rankings of each benchmark.
    """
    groups: dict[str, list[Ranking]] = {}
    for ranking in rankings:
        groups.setdefault(ranking.benchmark, []).append(ranking)
    return list(groups.items())


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
    # The fields of all rankings, in the order of their first occurrence.
    fields: dict[str, None] = {}
    for ranking in rankings:
        fields |= dict.fromkeys(ranking.conditions)

    found = {}
    for field in fields:
        values = list(dict.fromkeys(filter(None, _texts(field, rankings))))
        if len(values) > 1:
            found[field] = values

    # A hash adds nothing if the visible condition tells the rankings apart as well.
    for visible, digest in (("num_photos", "files_sha256"), ("names", "names_sha256")):
        if visible in found and len(found[visible]) >= len(found.get(digest, ())):
            found.pop(digest, None)
    return found


def protocol_labels(rankings: Sequence[Ranking]) -> list[str]:
    """Name the protocol of each ranking, which names and background add to.

    Args:
        rankings: Rankings, sorted by benchmark.

    Returns:
        For each ranking the name of its protocol, with a hash of its conditions where another
        ranking of the benchmark has the same protocol name, class names and background rule.
    """
    labels = []
    for _, group in by_benchmark(rankings):
        visible = [_visible(ranking) for ranking in group]
        hashes = [_digest(_telling(ranking.conditions)) for ranking in group]

        # Short hashes may be equal by chance.
        digits = _LABEL_DIGITS
        if len({each[:digits] for each in hashes}) < len(group):
            digits = len(hashes[0])

        for known, digest in zip(visible, hashes, strict=True):
            label = known[0]
            if visible.count(known) > 1:
                label += f" {digest[:digits]}"
            labels.append(label)

    return labels


def titles(rankings: Sequence[Ranking]) -> list[str]:
    """Title each ranking by its benchmark and by what distinguishes it from the benchmark's others.

    Args:
        rankings: Rankings, sorted by benchmark.

    Returns:
        A title for each ranking.
    """
    # These conditions are always shown, the others only where they differ.
    always = ("names", "background")
    labels = iter(protocol_labels(rankings))

    heads = []
    for benchmark, group in by_benchmark(rankings):
        apart = [field for field in differences(group) if field not in ("num_photos", *always)]
        texts = {field: _texts(field, group) for field in (*always, *apart)}

        for i, ranking in enumerate(group):
            photos = f"{ranking.conditions['num_photos']} photos"
            facts = [f"{benchmark}, {photos}, protocol {next(labels)}"]
            for field, values in texts.items():
                if values[i] not in ("", _NOT_RECORDED):
                    facts.append(f"{field}: {values[i]}")
            heads.append(", ".join(facts))

    return heads


def refusal(rankings: Sequence[Ranking]) -> str:
    """Explain why rows of one benchmark are not in one ranking.

    Args:
        rankings: Rankings of one benchmark.

    Returns:
        One line; empty if there is a single ranking.
    """
    if len(rankings) < 2:
        return ""

    # Protocols of another kind, such as probes, have other settings.
    apart, partly = [], []
    for field, values in differences(rankings).items():
        if _NOT_RECORDED in values:
            partly.append(field)
        else:
            apart.append(f"{field} ({' | '.join(values)})")
    if partly:
        apart.append(f"settings that not all rows record ({', '.join(partly)})")

    return f"not ranked together: {', '.join(apart)}"


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
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return value


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


def _visible(ranking: Ranking) -> tuple[str, str, str]:
    """Protocol name, class names and background rule, as tables show them."""
    # Rows with equal conditions may name their protocol differently.
    name = "/".join(dict.fromkeys(row.protocol_name for row in ranking.rows))
    return name, str(ranking.conditions["names"]), short_rule(ranking.conditions["background"])


def _digest(value: Any) -> str:
    """SHA-256 of a JSON value, in which 1 equals 1.0."""
    same = json.loads(json.dumps(value), parse_int=float)
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def _texts(field: str, rankings: Sequence[Ranking]) -> list[str]:
    """Abbreviate a condition of each ranking; a hash tells equal texts apart; empty if disabled."""
    every = [_telling(ranking.conditions) for ranking in rankings]
    values = {_frozen(telling.get(field)): telling.get(field) for telling in every}

    # Different values with equal texts get a hash.
    brief = {key: _brief(field, value) for key, value in values.items()}
    counts = Counter(brief.values())
    for key, value in values.items():
        if counts[brief[key]] > 1:
            brief[key] += " " + hashlib.sha256(json.dumps(value).encode()).hexdigest()[:6]

    texts = []
    for ranking, telling in zip(rankings, every, strict=True):
        text = brief[_frozen(telling.get(field))]
        if field in ranking.conditions and field not in telling:
            text = ""
        texts.append(text)
    return texts


def _brief(field: str, value: Any) -> str:
    """Abbreviate the value of a condition."""
    if value is None:
        return _NOT_RECORDED
    if field.endswith("sha256"):
        return str(value)[:SHOWN_HASH]

    if field == "background":
        return short_rule(value)

    # One value is short enough to be shown.
    if isinstance(value, list | tuple):
        return f"{value[0]!r}" if len(value) == 1 else f"{len(value)} of them"
    return str(value)

"""Claims of a paper, each that one variant is better than another, and what the rows of a study say
of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from studies.ledger import Named

VERDICTS = ("holds", "holds not", "mixed", "one seed, agrees", "one seed, does not agree")


@dataclass(frozen=True)
class Direction:
    """A claim of the paper, or of ours, that one variant is better than another."""

    claim: str
    better: str
    worse: str
    source: str
    measures: tuple[Named, Named] | tuple[()] = ()  # of either side, where they differ
    figure: str = "mean_iou"  # of a row, or of its parts


def found(
    rows: Sequence[dict[str, Any]], variant: str, measure: str, figure: str = "mean_iou"
) -> dict[int, float]:
    """Return a FIGURE of a variant by seed."""
    chosen = [row for row in rows if (row["variant"], row["measure"]) == (variant, measure)]
    values = {
        row["seed"]: row[figure] if figure in row else row["parts"].get(figure) for row in chosen
    }
    return {seed: value for seed, value in values.items() if value is not None}


def together(
    rows: Sequence[dict[str, Any]], variants: Sequence[str], measure: str, figure: str = "mean_iou"
) -> list[list[float]]:
    """Return a FIGURE of each of VARIANTS that was measured, over the seeds that all of
    these have.
    """
    values = [found(rows, variant, measure, figure) for variant in variants]
    seeds = sorted(
        set[int].intersection(*({*each} for each in values if each)) if any(values) else ()
    )
    return [[each[seed] for seed in seeds if each] for each in values]


def compared(
    rows: Sequence[dict[str, Any]], direction: Direction, measures: Sequence[Named]
) -> list[tuple[str, list[float]]]:
    """Return, for each of MEASURES that both sides have, by how much the better one is better, seed
    by seed.
    """
    pairs = [direction.measures] if direction.measures else [(m, m) for m in measures]
    gains = []
    for ours, theirs in pairs:
        better = found(rows, direction.better, ours.name, direction.figure)
        worse = found(rows, direction.worse, theirs.name, direction.figure)
        if seeds := sorted(better.keys() & worse.keys()):
            gains.append((ours.name, [better[seed] - worse[seed] for seed in seeds]))
    return gains


def verdict(gains: Sequence[float]) -> str:
    """Return one of VERDICTS on the gains of a claim, seed by seed."""
    holds, holds_not, mixed, agrees, does_not = VERDICTS
    if len(gains) < 2:
        return agrees if gains[0] > 0 else does_not
    return holds if min(gains) > 0 else holds_not if max(gains) <= 0 else mixed


def agreement(gains: Sequence[float]) -> str:
    """Say how many seeds agree."""
    return f"{sum(gain > 0 for gain in gains)} of {len(gains)}"


def spread(values: Sequence[float]) -> str:
    """Mean of fractions in percent and, of several, their standard deviation."""
    if not values:
        return "–"
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def tables(
    rows: Sequence[dict[str, Any]], measures: Sequence[Named], directions: Sequence[Direction]
) -> list[Table]:
    """Variants by measure, and the directions."""
    scores = Table(
        "variant", *(m.name for m in measures), title="mIoU %, mean ± standard deviation over seeds"
    )
    for variant in dict.fromkeys(row["variant"] for row in rows):
        scores.add_row(
            variant, *(spread(list(found(rows, variant, m.name).values())) for m in measures)
        )
    claims = Table("claim", "measure", "gain in mIoU", "seeds that agree", "", title="directions")
    for direction in directions:
        for name, gains in compared(rows, direction, measures):
            claim = f"{direction.claim} ({direction.source})"
            claims.add_row(claim, name, spread(gains), agreement(gains), verdict(gains))
    return [scores, claims]

"""CLIP-S4 with one thing changed at a time: what its Tables 2 to 7 compare, by what, and what they
claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.evaluation.class_free import unknown_classes
from maskfree.evaluation.probes.config import KnnConfig, LinearConfig
from maskfree.evaluation.protocol import Protocol
from maskfree.methods.clips4.config import CLIPS4Config
from studies.clips4_figures import ProbeFigure
from studies.directions import Direction
from studies.ledger import Measure, bare

TEACHER, PLUS, FULL = "teacher", "MaskCLIP+", "CLIP-S4"
TOP = "prototypes of m segments"
CONTRAST, CONTRAST_EMBEDDING, CONTRAST_SEMANTIC, CONSISTENCY = (
    "L_t",
    "L_t + L_e",
    "L_t + L_s",
    "L_e + L_s",
)
NUM_FOLDS = 4
_FOLD_SIDE_PX = 320  # many runs
UNKNOWN, COUNTS = 64, (16, 32, 64, 128, 256)
TOPS = (1, 4, 16, 64, 256)

COCO = Measure("coco-mini", "coco-mini", bare(names="synonyms"))
COCO_OWN = Measure("coco-mini, smoothed", "coco-mini", Protocol(names="synonyms"))
CAMVID = Measure("camvid", "camvid", bare())
CAMVID_OWN = Measure("camvid, smoothed", "camvid", Protocol())
KNN = ProbeFigure("k-NN, camvid", "camvid", KnnConfig())
LINEAR = ProbeFigure("linear, camvid", "camvid", LinearConfig(epochs=10))
NAMED = (COCO, COCO_OWN)
MEASURES = (*NAMED, CAMVID, CAMVID_OWN, KNN, LINEAR)


@dataclass(frozen=True)
class Column:
    """A figure that only a run can measure, since it needs the run's data."""

    name: str


@dataclass(frozen=True)
class Ablation:
    """A row of the paper's tables, and how its method differs from the full one."""

    name: str
    tables: tuple[int, ...]
    change: Callable[[CLIPS4Config], CLIPS4Config]


def plus(method: CLIPS4Config) -> CLIPS4Config:
    """MaskCLIP+: the same student, pixels labeled by the teacher."""
    alone = replace(method, contrast=None, embedding_weight=None, semantic=None)
    return replace(alone, pseudo_label_weight=1.0, segments=None)


def count_name(count: int) -> str:
    """Return the name of a row of Table 7."""
    return FULL if count == UNKNOWN else f"{count} unknown classes"


def fold_measure(fold: int) -> Measure:
    """Return how Table 3 measures a fold: all classes compete, means over unknown and
    known ones.
    """
    unknown = unknown_classes(benchmark("coco-mini"), fold, NUM_FOLDS)
    return Measure(
        f"fold {fold}", "coco-mini", bare(names="synonyms", side_px=_FOLD_SIDE_PX), unknown
    )


def _without(method: CLIPS4Config, *terms: str) -> CLIPS4Config:
    return replace(method, **dict.fromkeys(terms))


def _unknown(method: CLIPS4Config, count: int) -> CLIPS4Config:
    assert method.semantic is not None
    return replace(method, semantic=replace(method.semantic, num_unknown=count))


def _same(method: CLIPS4Config) -> CLIPS4Config:
    return method


ABLATIONS = (
    Ablation(FULL, (2, 3, 4, 5, 6, 7), _same),
    Ablation(PLUS, (2, 3, 4, 5), plus),
    Ablation(CONTRAST, (6,), lambda method: _without(method, "embedding_weight", "semantic")),
    Ablation(CONTRAST_EMBEDDING, (6,), lambda method: _without(method, "semantic")),
    Ablation(CONTRAST_SEMANTIC, (6,), lambda method: _without(method, "embedding_weight")),
    Ablation(CONSISTENCY, (6,), lambda method: _without(method, "contrast")),
    *(
        Ablation(count_name(count), (7,), partial(_unknown, count=count))
        for count in COUNTS
        if count != UNKNOWN
    ),
)
_TRACKED = (Column("tracking"), Column("tracking"))
_SIMILAR = (Column("similarity"), Column("similarity"))
_UNKNOWN, _KNOWN, _BOTH = "unseen classes", "seen classes", "harmonic mean of classes"
DIRECTIONS = (
    Direction("the student is better than its teacher", FULL, TEACHER, "Table 2: 33.6 over 25.2"),
    Direction("the student is better than MaskCLIP+", FULL, PLUS, "Table 2: 33.6 over 32.2"),
    Direction("MaskCLIP+ is better than the teacher", PLUS, TEACHER, "Table 2: 32.2 over 25.2"),
    *(
        Direction(f"{claim} {worse}", FULL, worse, "Table 3", (measure, measure), figure)
        for claim, figure in (
            ("on unknown classes, better than", _UNKNOWN),
            ("on known classes, better than", _KNOWN),
            ("in their harmonic mean, better than", _BOTH),
        )
        for worse in (PLUS, TEACHER)
        for measure in map(fold_measure, range(NUM_FOLDS))
    ),
    Direction(
        "follows masks better than its teacher",
        FULL,
        TEACHER,
        "Table 5: J 52.3 over 48.1",
        _TRACKED,
        "J",
    ),
    Direction(
        "follows masks better than MaskCLIP+",
        FULL,
        PLUS,
        "Table 5: J 52.3 over 42.6",
        _TRACKED,
        "J",
    ),
    Direction("L_t helps", FULL, CONSISTENCY, "Table 6: 33.6 over 31.3"),
    Direction("L_e helps", FULL, CONTRAST_SEMANTIC, "Table 6: 33.6 over 32.9"),
    Direction("L_s helps", FULL, CONTRAST_EMBEDDING, "Table 6: 33.6 over 24.3"),
    Direction(
        "L_e keeps the teacher's space",
        FULL,
        CONTRAST_SEMANTIC,
        "Table 6: .66 over .33",
        _SIMILAR,
        "similarity",
    ),
)


def for_every_seed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ROWS with those of the teacher, which has no seed, for each seed that there is, so
    that it compares.
    """
    others = sorted(
        {row["seed"] for row in rows} - {row["seed"] for row in rows if row["variant"] == TEACHER}
    )
    return [
        *rows,
        *(row | {"seed": seed} for seed in others for row in rows if row["variant"] == TEACHER),
    ]


def first_time(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the first study, with a memory of 1,152 segments and coarser contours."""
    return [row for row in rows if row.get("earlier")]


def latest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the second study, and of the first what the second has not measured."""
    again = [row for row in rows if not row.get("earlier")]
    measured = {(row["variant"], row["measure"]) for row in again}
    return [
        *again,
        *(row for row in first_time(rows) if (row["variant"], row["measure"]) not in measured),
    ]


def second_time(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are not of the first study, with its teacher, which is the same."""
    return [row for row in latest(rows) if not row.get("earlier") or row["variant"] == TEACHER]

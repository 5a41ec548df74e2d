"""Tables of `python -m studies clips4`: CLIP-S4's tables at small scale, beside the paper's
numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from maskfree.evaluation.reporting.published import published
from studies.clips4 import COMMAND, KIND
from studies.clips4_variants import (
    CAMVID,
    CAMVID_OWN,
    COCO,
    CONSISTENCY,
    CONTRAST,
    CONTRAST_EMBEDDING,
    CONTRAST_SEMANTIC,
    COUNTS,
    DIRECTIONS,
    FULL,
    KNN,
    LINEAR,
    MEASURES,
    NAMED,
    NUM_FOLDS,
    PLUS,
    TEACHER,
    TOP,
    count_name,
    first_time,
    fold_measure,
    for_every_seed,
    latest,
)
from studies.directions import found, spread
from studies.ledger import read
from studies.tables.markup import RESULTS, Row, history, markdown, missing, percent, pictures
from studies.tables.study import cell as printed
from studies.tables.study import directions, verdicts

PAPER = "arXiv:2305.01040"
COMPARED = (TEACHER, PLUS, FULL)
PAPER_SECOND = {
    TEACHER: "MaskCLIP, ViT-B/16",
    PLUS: "MaskCLIP+, CLIP ViT-B/16",
    FULL: "CLIP-S4, CLIP ViT-B/16",
}
PAPER_OTHERS = {TEACHER: "MaskCLIP", PLUS: "MaskCLIP+", FULL: "CLIP-S4"}
PAPER_SIXTH = {  # Table 6: pixel accuracy, mIoU, avgsim
    CONTRAST: ("1.6", "0.5", "-0.01"),
    CONTRAST_EMBEDDING: ("48.1", "24.3", "0.79"),
    CONTRAST_SEMANTIC: ("52.3", "32.9", "0.33"),
    CONSISTENCY: ("48.6", "31.3", "–"),
    FULL: ("53.7", "33.6", "0.66"),
}
PAPER_SEVENTH = {16: "71.6", 32: "71.9", 64: "72.0", 128: "72.2", 256: "71.9"}
PAPER_EIGHTH = {"1": "0.921", "4": "0.977", "16": "0.996", "64": "0.997", "256": "0.993"}
PARTS = {
    "mIoU of unknown classes": "unseen classes",
    "mIoU of known classes": "seen classes",
    "harmonic mean": "harmonic mean of classes",
}


def second(_: Sequence[Row]) -> str:
    """Table 2: the teacher, MaskCLIP+ and CLIP-S4 by names."""
    rows, measures, lines = _read(), (*NAMED, CAMVID, CAMVID_OWN), []
    numbers = [number for number in published() if number.source == f"{PAPER}, Table 2"]
    for variant in COMPARED:
        cells = [spread(list(found(rows, variant, measure.name).values())) for measure in measures]
        paper = [
            printed(numbers, PAPER_SECOND[variant], name, "mIoU")
            for name in ("context59", "coco-stuff")
        ]
        if any(each != "–" for each in cells):
            lines.append((variant, *cells, *paper))
    header = (
        "",
        *(f"{m.name}: mIoU %" for m in measures),
        "the paper, Context",
        "the paper, COCO-Stuff",
    )
    return markdown(header, lines, "l" + "r" * (len(measures) + 2), COMMAND)


def third(_: Sequence[Row]) -> str:
    """Table 3: class-free, by fold."""
    rows, lines = _read(), []
    numbers = [number for number in published() if number.source == f"{PAPER}, Table 3"]
    for fold in range(NUM_FOLDS):
        for variant in COMPARED:
            name = fold_measure(fold).name
            cells = [
                spread(list(found(rows, variant, name, part).values())) for part in PARTS.values()
            ]
            theirs = [
                number
                for number in numbers
                if number.protocol["name"] == f"class-free, fold {fold}"
            ]
            paper = [
                printed(theirs, PAPER_OTHERS[variant], "context59", metric) for metric in PARTS
            ]
            if any(each != "–" for each in cells):
                lines.append((str(fold), variant, *cells, *paper))
    ours, paper = (
        ("unknown", "known", "harmonic mean"),
        ("the paper: unknown", "known", "harmonic mean"),
    )
    return markdown(("fold", "", *ours, *paper), lines, "llrrrrrr", COMMAND)


def fourth(_: Sequence[Row]) -> str:
    """Table 4: nearest neighbors and a linear classifier, which learn from masks."""
    numbers = [number for number in published() if number.source == f"{PAPER}, Table 4"]
    rows, lines = _read(), []
    for variant in COMPARED:
        cells = [spread(list(found(rows, variant, probe.name).values())) for probe in (KNN, LINEAR)]
        paper = [
            printed(
                [n for n in numbers if n.protocol["name"] == name],
                PAPER_OTHERS[variant],
                "voc21",
                "mIoU",
            )
            for name in ("nearest neighbors", "linear probe")
        ]
        if any(each != "–" for each in cells):
            lines.append((variant, *cells, *paper))
    header = (
        "",
        "k-NN: mIoU %",
        "linear: mIoU %",
        "the paper, VOC: k-NN",
        "the paper, VOC: linear",
    )
    return markdown(header, lines, "lrrrr", COMMAND)


def fifth(_: Sequence[Row]) -> str:
    """Table 5: masks followed through videos."""
    numbers = [number for number in published() if number.source == f"{PAPER}, Table 5"]
    metrics, rows, lines = ("region similarity J", "boundary accuracy F"), _read(), []
    for variant in COMPARED:
        cells = [
            spread(list(found(rows, variant, "tracking", figure).values())) for figure in ("J", "F")
        ]
        paper = [
            printed(numbers, PAPER_OTHERS[variant], "davis-2017", metric) for metric in metrics
        ]
        if any(each != "–" for each in cells):
            lines.append((variant, *cells, *paper))
    return markdown(("", "J", "F", "the paper, DAVIS 2017: J", "F"), lines, "lrrrr", COMMAND)


def sixth(_: Sequence[Row]) -> str:
    """Table 6: which losses are on."""
    rows, lines = _read(), []
    for variant, paper in PAPER_SIXTH.items():
        names = ("pixel_accuracy", "mean_iou")
        first = [list(found(rows, variant, COCO.name, figure).values()) for figure in names]
        cosines = list(found(rows, variant, "similarity", "similarity").values())
        cosine = f"{statistics.mean(cosines):.2f}" if cosines else "–"
        if any(first):
            lines.append((variant, *map(spread, first), cosine, *paper))
    header = (
        "",
        "pixel accuracy %",
        "mIoU %",
        "avgsim",
        "the paper: pixel accuracy",
        "mIoU",
        "avgsim",
    )
    return markdown(header, lines, "lrrrrrr", COMMAND)


def seventh(_: Sequence[Row]) -> str:
    """Table 7: how many unknown classes."""
    rows, lines = _read(), []
    for count in COUNTS:
        name = count_name(count)
        values = [list(found(rows, name, each.name).values()) for each in (KNN, COCO)]
        if any(values):
            lines.append((str(count), *map(spread, values), PAPER_SEVENTH[count]))
    header = (
        "unknown classes",
        "k-NN: mIoU %",
        "coco-mini by names: mIoU %",
        "the paper, VOC k-NN",
    )
    return markdown(header, lines, "rrrr", COMMAND)


def eighth(_: Sequence[Row]) -> str:
    """Table 8: how many segments a prototype is the mean of."""
    row = next((row for row in _read() if row["variant"] == TOP), None)
    if row is None:
        return missing(COMMAND)
    lines = [(m, f"{cosine:.3f}", PAPER_EIGHTH[m]) for m, cosine in row["similarities"].items()]
    return markdown(("top m", "cosine to the prototypes of 32", "the paper"), lines, "rrr", COMMAND)


def claims(_: Sequence[Row]) -> str:
    """Each claim on each measure: what the better side gains, and whether the seeds agree."""
    return directions(for_every_seed(_read()), DIRECTIONS, MEASURES, COMMAND)


def claims_by_verdict(_: Sequence[Row]) -> str:
    """Which claims hold, on which measures."""
    return verdicts(for_every_seed(_read()), DIRECTIONS, MEASURES, COMMAND)


def drawn(_: Sequence[Row]) -> str:
    """The pictures that the study drew."""
    shown = {
        "unknown": "mIoU by number of unknown classes",
        "colors": "pixel embeddings as colors",
        "embeddings": "segment embeddings in two dimensions",
        "retrieved": "segments retrieved for classes outside of the training; wrong in orange",
    }
    return pictures({f"{KIND}-{name}.svg": what for name, what in shown.items()}, COMMAND)


def of_the_first_study(_: Sequence[Row]) -> str:
    """Which figures are of the first study, since the second has not measured them."""
    names: dict[str, list[str]] = {}
    for row in first_time(_read()):
        measures = names.setdefault(row["variant"], [])
        if row["measure"] not in measures:
            measures.append(row["measure"])
    return (
        "; ".join(f"{variant} ({' · '.join(measures)})" for variant, measures in names.items())
        + "."
    )


def _read() -> list[Row]:
    return latest(read(RESULTS, KIND))


def history_students(rows: Sequence[Row]) -> str:
    """What students were tried before the recipe stood: history."""
    return _history(rows, "students", ("coco-mini", "coco-mini, smoothed", "camvid"))


def history_labels(rows: Sequence[Row]) -> str:
    """What the teacher's labels are worth, made in several ways: history."""
    return _history(rows, "labels", ("coco-mini",))


def _history(rows: Sequence[Row], part: str, columns: Sequence[str]) -> str:
    points, source = history(rows, "clips4")
    figures = ("mean_iou", "pixel_accuracy")
    lines = [
        (
            point["tried"],
            *(percent(point.get(name, {}).get(figure)) for name in columns for figure in figures),
        )
        for point in points
        if point["part"] == part
    ]
    header = (
        "tried",
        *(f"{name}: {what}" for name in columns for what in ("mIoU %", "accuracy %")),
    )
    return f"{markdown(header, lines, 'l' + 'r' * (len(header) - 1), COMMAND)}\n\n{source}"

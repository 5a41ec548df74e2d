"""Tables of what `maskfree evaluate` measured: the bundled model by protocol, class, threshold and
kind of boundary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.evaluation.named_protocols import PROTOCOLS
from maskfree.evaluation.reporting.tables import short_rule
from maskfree.results.segmentation import BACKGROUND
from maskfree.text.background import Background
from studies.tables.markup import Row, markdown, percent, pictures

MODEL = "pocket"
EVALUATE = "maskfree evaluate coco-mini --data ../shared/data"
SWEEP = f"{EVALUATE} --names synonyms --sweep threshold 0:0.8:0.05"
SCORES = ("mIoU %", "pixel accuracy %")
LARGE_FIRST = ("coco-mini", "coco-mini-80", "camvid")


def headline(rows: Sequence[Row]) -> str:
    """What the bundled model scores by our own protocol."""
    lines = [
        (
            row["benchmark"],
            str(row["num_photos"]),
            _num_classes(row),
            row["protocol"]["names"],
            f"`{row['protocol']['background']}`",
            percent(row["mean_iou"]),
            percent(row["pixel_accuracy"]),
        )
        for row in _own(rows)
    ]
    header = ("benchmark", "photos", "classes", "names", "background", *SCORES)
    return markdown(header, lines, "lrrllrr", EVALUATE)


def protocols(rows: Sequence[Row]) -> str:
    """What the bundled model scores by each named protocol, the mean IoU of parts of the classes
    and the scores of halves of the photos.
    """
    named = [
        row for row in _scored(rows) if row["model"] == MODEL and row["protocol_name"] in PROTOCOLS
    ]
    order = list(PROTOCOLS)
    lines = [
        (
            row["benchmark"],
            row["protocol_name"],
            _num_classes(row),
            row["protocol"]["names"],
            f"`{short_rule(row['protocol']['background'])}`",
            percent(row["mean_iou"]),
            percent(row["pixel_accuracy"]),
            "; ".join(f"{part} {percent(value)}" for part, value in row["parts"].items()) or "–",
        )
        for row in sorted(
            named, key=lambda row: (_place(row["benchmark"]), order.index(row["protocol_name"]))
        )
    ]
    header = (
        "benchmark",
        "protocol",
        "classes",
        "names",
        "background",
        *SCORES,
        "parts: mIoU % (or accuracy)",
    )
    return markdown(header, lines, "llrllrrl", f"{EVALUATE} --protocol {' '.join(PROTOCOLS)}")


def classes(rows: Sequence[Row]) -> str:
    """IoU per class of the bundled model on coco-mini by our own protocol, a column for each names
    and background.
    """
    scored = [row for row in _own(rows) if row["benchmark"] == "coco-mini"]
    names = list(dict.fromkeys(name for row in scored for name in row["iou"] if name != BACKGROUND))
    if any(BACKGROUND in row["iou"] for row in scored):
        names.append(BACKGROUND)
    header = (
        "class",
        *(
            f"{row['protocol']['names']}, {short_rule(row['protocol']['background'])}"
            for row in scored
        ),
    )
    lines = [(name, *(percent(row["iou"].get(name)) for row in scored)) for name in names]
    return markdown(header, lines, "l" + "r" * len(scored), EVALUATE)


def extremes(rows: Sequence[Row]) -> str:
    """The classes of coco-mini on which the bundled model is best and worst, with synonyms and
    without background.
    """
    for row in _own(rows):
        protocol = row["protocol"]
        if (row["benchmark"], protocol["names"], protocol["background"]) == (
            "coco-mini",
            "synonyms",
            "none",
        ):
            order = sorted(
                ((iou, name) for name, iou in row["iou"].items() if iou is not None), reverse=True
            )
            best, worst = (
                ", ".join(f"{n} ({percent(iou)})" for iou, n in part)
                for part in (order[:5], order[:-6:-1])
            )
            return (
                f"Of the {len(order)} classes of `coco-mini`, with synonyms "
                "and without background, it has its highest "
                f"IoU on {best} and its lowest on {worst}, in percent."
            )
    return markdown((), (), "", EVALUATE)


def confusions(rows: Sequence[Row]) -> str:
    """The pairs of classes that the bundled model confuses most, on coco-mini and CamVid without
    background.
    """
    chosen = [
        row
        for row in _own(rows)
        if _key(row) in (("coco-mini", "synonyms", "none"), ("camvid", "plain", "none"))
    ]
    lines = [
        (row["benchmark"], true, said, f"{100 * share:.1f}")
        for row in chosen
        for true, said, share in row["confusions"][:5]
    ]
    header = ("benchmark", "true class", "called", "share of all pixels that count %")
    return markdown(header, lines, "lllr", EVALUATE)


def sweep(rows: Sequence[Row]) -> str:
    """The curve over background thresholds, a pair of columns for each sweep.

    None of the thresholds is chosen.
    """
    sweeps = [row["rows"] for row in _sweeps(rows)]
    points = [{_threshold(point): point for point in points} for points in sweeps]
    figures = [(curve, figure) for curve in points for figure in ("mean_iou", "pixel_accuracy")]
    lines = [
        (
            f"{threshold:g}",
            *(
                percent(curve[threshold][figure]) if threshold in curve else "–"
                for curve, figure in figures
            ),
        )
        for threshold in sorted({threshold for curve in points for threshold in curve})
    ]
    heads = [
        ", ".join((each[0]["benchmark"], each[0]["protocol_name"], each[0]["protocol"]["names"]))
        for each in sweeps
    ]
    header = (
        "threshold",
        *(f"{head}: {figure} %" for head in heads for figure in ("mIoU", "pixel accuracy")),
    )
    return markdown(header, lines, "r" * len(header), SWEEP)


def sweep_pictures(rows: Sequence[Row]) -> str:
    """The curves of the sweeps."""
    return pictures(
        {_picture(row): "mIoU and pixel accuracy by threshold" for row in _sweeps(rows)}, SWEEP
    )


def class_pictures(rows: Sequence[Row]) -> str:
    """The bars of IoU by class that `maskfree evaluate --chart` drew by our own protocol."""
    files = {_picture(row): f"IoU by class on {', '.join(_key(row))}" for row in _own(rows)}
    return pictures(files, f"{EVALUATE} --chart")


def boundaries(rows: Sequence[Row]) -> str:
    """What is between patches, by each refinement whose boundary F-score was measured."""
    measured = [
        row for row in _scored(rows) if row["boundary_f"] is not None and row["model"] == MODEL
    ]
    shown = {"none": "bilinear", "pamr": "PAMR", "crf": "dense CRF", "regions": "regions"}
    order = tuple(shown)
    lines = [
        (
            *_what(row),
            shown[row["protocol"]["refine"]],
            percent(row["mean_iou"]),
            percent(row["pixel_accuracy"]),
            percent(row["boundary_f"]),
            f"{row['seconds_per_photo']:.2f}",
        )
        for row in sorted(
            measured,
            key=lambda row: (
                _place(row["benchmark"]),
                _key(row),
                order.index(row["protocol"]["refine"]),
            ),
        )
    ]
    header = ("benchmark", "names", "background", "refined by", *SCORES, "boundary F %", "s/photo")
    return markdown(header, lines, "llllrrrr", f"{EVALUATE} --boundaries --refine pamr")


def selftraining(rows: Sequence[Row]) -> str:
    """Students of self-training beside their teachers, on the same benchmark, names, background and
    side.
    """
    whole = [row for row in _scored(rows) if row["protocol_name"] in ("own", "custom")]
    students = [row for row in whole if row["model"].endswith("-student")]
    shown: list[tuple[str, Row]] = []
    for key in dict.fromkeys(
        (row["model"].removesuffix("-student"), *_key(row)) for row in students
    ):
        taught = [
            row for row in students if (row["model"].removesuffix("-student"), *_key(row)) == key
        ]
        sides = {row["protocol"]["side_px"] for row in taught}
        teachers = [
            row
            for row in whole
            if (row["model"], *_key(row)) == key
            and row["protocol"]["side_px"] in sides
            and row["protocol"]["refine"] == "none"
        ]
        shown += [("teacher", row) for row in teachers] + [("student", row) for row in taught]
    lines = [
        (
            *_what(row),
            f"{part}, `{row['model']}`",
            *(f"{row['protocol'][name]:g}" for name in ("side_px", "smooth", "class_prior")),
            percent(row["mean_iou"]),
            percent(row["pixel_accuracy"]),
        )
        for part, row in shown
    ]
    header = (
        "benchmark",
        "names",
        "background",
        "model",
        "side px",
        "smooth",
        "class_prior",
        "mIoU %",
        "pixel accuracy %",
    )
    return markdown(
        header, lines, "llllrrrrr", "maskfree evaluate camvid --data ../shared/data --model STUDENT"
    )


def probes(rows: Sequence[Row]) -> str:
    """Classifiers of the bundled model's frozen embeddings."""
    lines = [
        (
            row["benchmark"],
            row["protocol_name"],
            row["protocol"]["taught_by"],
            str(row["protocol"]["side_px"]),
            percent(row["mean_iou"]),
            percent(row["pixel_accuracy"]),
        )
        for row in _scored(rows)
        if row["protocol_name"] in ("knn", "linear") and row["model"] == MODEL
    ]
    header = ("benchmark", "probe", "trained on", "side px", "mIoU %", "pixel accuracy %")
    return markdown(header, lines, "lllrrr", "maskfree evaluate knn camvid --data ../shared/data")


def commands(rows: Sequence[Row]) -> str:
    """The command behind each file of results."""
    lines = [(f"`{row['file']}`", f"`{command}`") for row in rows if (command := _command(row))]
    return markdown(("file", "command"), lines, "ll", EVALUATE)


def unseen(rows: Sequence[Row]) -> list[Row]:
    """Return the bundled model's rows on the unseen classes of ViL-Seg's paper."""
    scored = [row for row in _scored(rows) if row["model"] == MODEL]
    return [
        row
        for name in ("unseen", "unseen-among-all")
        for row in scored
        if row["protocol_name"] == name
    ]


def _command(row: Row) -> str | None:
    return row["rows"][0]["command"] if row.get("kind") == "sweep" else row.get("command")


def _scored(rows: Iterable[Row]) -> list[Row]:
    """Rows of `maskfree evaluate`."""
    return [row for row in rows if "protocol_name" in row]


def _sweeps(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.get("kind") == "sweep" and row["rows"][0]["model"] == MODEL]


def _picture(row: Row) -> str:
    return row["file"].removesuffix(".json") + ".svg"


def _own(rows: Iterable[Row]) -> list[Row]:
    own = [row for row in _scored(rows) if row["model"] == MODEL and row["protocol_name"] == "own"]
    return sorted(own, key=lambda row: (_place(row["benchmark"]), *_key(row)))


def _key(row: Row) -> tuple[str, str, str]:
    return row["benchmark"], row["protocol"]["names"], row["protocol"]["background"]


def _what(row: Row) -> tuple[str, str, str]:
    return (
        row["benchmark"],
        row["protocol"]["names"],
        f"`{short_rule(row['protocol']['background'])}`",
    )


def _place(name: str) -> tuple[int, str]:
    return LARGE_FIRST.index(name) if name in LARGE_FIRST else len(LARGE_FIRST), name


def _num_classes(row: Row) -> str:
    """Count the classes that are scored, and among how many the model chose if that is another
    number.
    """
    chosen = len([name for name in row["iou"] if name != BACKGROUND])
    if row["protocol"]["scored"] == "all" or row["protocol"]["candidates"] == "unseen":
        return str(chosen)
    return f"{len(benchmark(row['benchmark']).unseen)} of {chosen}"


def _threshold(row: Row) -> float:
    threshold = Background.parse(row["protocol"]["background"]).threshold
    assert threshold is not None
    return threshold

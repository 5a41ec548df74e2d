"""Tables of `python -m studies vilseg`: ViL-Seg's tables and figures at small scale, beside the
paper's numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from maskfree.evaluation.reporting.published import Published, published
from studies.directions import VERDICTS, Direction, agreement, compared, found, spread, verdict
from studies.ledger import Measure, read
from studies.tables.markup import RESULTS, Row, gain, history, markdown, missing, percent, pictures
from studies.tables.scores import MODEL, unseen
from studies.vilseg import (
    ALL_MEASURES,
    CAMVID,
    CLIP_SEG,
    CLUSTERS,
    COCO,
    DIRECTIONS,
    FULL,
    HARD,
    KEPT,
    KIND,
    KMEANS,
    MEASURES,
    NO_VISION,
    NO_WORDS,
    NUM_CLUSTERS,
    PIXELS,
    PIXELS_STUDENT,
    SMALL,
    SMOOTHED,
    STUDENT,
    study_rows,
)
from studies.vilseg_speed import COMMAND as SPEED_COMMAND
from studies.vilseg_speed import GROUPINGS, MOBILE, VIT, shown
from studies.vilseg_speed import KIND as SPEED

REPRODUCE = "python -m studies vilseg --data ../shared/data"
PAPER = "arXiv:2207.08455"
PAPER_NAMES = {
    CLIP_SEG: "CLIP + Seg, ViT-B/16",
    PIXELS: "–",
    FULL: "ViL-Seg, ViT-B/16",
    PIXELS_STUDENT: "–",
    STUDENT: "ViL-Seg + ST, ViT-B/16",
}
PAPER_ABLATED = {NO_VISION: "ViL-Seg w/o L_vision", KMEANS: "Offline (K-means)", FULL: "ViL-Seg"}
PAPER_SETS = {"voc20": "PASCAL VOC", "context59": "PASCAL Context", "coco-stuff": "COCO-Stuff"}
UNMEASURED = "not measured here"
FIGURES = {"mean_iou": "mIoU", "pixel_accuracy": "pixel accuracy"}
PICTURES = {
    "clusters": "mIoU by number of clusters",
    "regions": "Regions of the same photos: without L_vision, by K-means, by the online head",
    "classes": "IoU by class of the full ViL-Seg on coco-mini",
}


def study_first(_: Sequence[Row]) -> str:
    """The shape of Table 1: CLIP + Seg, single pixels, ViL-Seg and the student read either way.

    Ours by benchmark, then the paper's by data set.
    """
    rows, variants = study_rows(RESULTS), tuple(PAPER_NAMES)
    lines = []
    for measure in (*MEASURES, SMALL, *KEPT):
        cells = [
            spread(list(found(rows, v, measure.name, figure).values()))
            for v in variants
            for figure in FIGURES
        ]
        if any(cell != "–" for cell in cells):
            lines.append((f"ours, {measure.name}", *cells))
    for name, title in PAPER_SETS.items() if lines else ():
        cells = [
            _paper("Table 1", PAPER_NAMES[v], name, figure)
            for v in variants
            for figure in FIGURES.values()
        ]
        lines.append((f"the paper, {title}, unseen classes", *cells))
    header = (
        "",
        *(f"{variant}: {figure} %" for variant in variants for figure in FIGURES.values()),
    )
    return markdown(header, lines, "l" + "r" * 10, REPRODUCE)


def study_second(_: Sequence[Row]) -> str:
    """The shape of Table 2: scores of the ablations.

    Ours, then the paper's.
    """
    rows, lines = read(RESULTS, KIND), []
    for variant in (NO_VISION, KMEANS, FULL, HARD, PIXELS, NO_WORDS):
        chosen = [row for row in rows if (row["variant"], row["measure"]) == (variant, COCO.name)]
        if not chosen:
            continue
        scores = [
            spread(list(found(rows, variant, measure.name, figure).values()))
            for measure in (COCO, CAMVID)
            for figure in FIGURES
        ]
        name = PAPER_ABLATED.get(variant, "–")
        paper = [_paper("Table 2", name, "voc20", figure) for figure in FIGURES.values()]
        lines.append((variant, *scores, *paper))
    ours = (f"{m.name}: {figure} %" for m in (COCO, CAMVID) for figure in FIGURES.values())
    paper_header = ("VOC: mIoU %", "VOC: pixel accuracy %")
    header = ("variant", *ours, *(f"the paper: {part}" for part in paper_header))
    return markdown(header, lines, "l" + "r" * 6, REPRODUCE)


def study_speed(rows: Sequence[Row]) -> str:
    """The rest of Table 2: parameters of the image side and speed, encoder by encoder."""
    measured = [row for each in rows if each.get("kind") == SPEED for row in each["rows"]]
    lines = []
    for variant in GROUPINGS if measured else ():
        cells = [cell for encoder in (VIT, MOBILE) for cell in shown(measured, encoder, variant)]
        name = PAPER_ABLATED.get(variant, "–")
        sizes = [_paper("Table 2", name, "any", f) for f in ("parameters, million", "photos/s")]
        lines.append((variant, *cells, *sizes))
    encoders = (VIT, MOBILE, "the paper")
    columns = [
        f"{each}: {part}" for each in encoders for part in ("parameters, million", "photos/s")
    ]
    return markdown(("grouping", *columns), lines, "lrrrrrr", SPEED_COMMAND)


def study_clusters(_: Sequence[Row]) -> str:
    """Fig. 5: mIoU and pixel accuracy by number of clusters."""
    rows, lines = read(RESULTS, KIND), []
    for count in CLUSTERS:
        variant = FULL if count == NUM_CLUSTERS else f"C = {count}"
        cells = [
            list(found(rows, variant, m.name, figure).values())
            for m in (COCO, CAMVID)
            for figure in FIGURES
        ]
        if any(cells):
            lines.append((str(count), *map(spread, cells)))
    header = (
        "clusters C",
        *(f"{m.name}: {figure} %" for m in (COCO, CAMVID) for figure in FIGURES.values()),
    )
    return markdown(header, lines, "rrrrr", REPRODUCE)


def model_scores(_: Sequence[Row]) -> str:
    """What groups the bundled model's embeddings: the head, K-means, nothing; a line a variant."""
    rows, lines = read(RESULTS, KIND, MODEL), []
    measures = (COCO, SMOOTHED, CAMVID)
    for variant in dict.fromkeys(row["variant"] for row in rows):
        cells = [
            list(found(rows, variant, m.name, figure).values())
            for m in measures
            for figure in FIGURES
        ]
        lines.append((variant, *map(spread, cells)))
    header = (
        "variant",
        *(f"{m.name}: {figure} %" for m in measures for figure in FIGURES.values()),
    )
    return markdown(header, lines, "lrrrrrr", f"{REPRODUCE} --model {MODEL}")


def model_directions(_: Sequence[Row]) -> str:
    """The claims on grouping, with the bundled model's embeddings."""
    return directions(read(RESULTS, KIND, MODEL), DIRECTIONS, ALL_MEASURES, REPRODUCE)


def study_directions(_: Sequence[Row]) -> str:
    """Each claim on each measure: what the better side gains, and whether the seeds agree."""
    return directions(study_rows(RESULTS), DIRECTIONS, ALL_MEASURES, REPRODUCE)


def directions(
    rows: Sequence[Row], claimed: Sequence[Direction], measures: Sequence[Measure], command: str
) -> str:
    """Lay out claims by measure: the gain, and whether the seeds agree."""
    lines = []
    for direction in claimed:
        claim = (direction.claim, direction.source)
        for measure, gains in compared(rows, direction, measures):
            amount = _amount(gains, direction.figure)
            lines.append((*claim, measure, amount, agreement(gains), verdict(gains)))
            claim = ("", "")
    header = ("claim", "from", "measured on", "gain, mIoU %", "seeds that agree", "")
    return markdown(header, lines, "lllrrl", command)


def _amount(gains: Sequence[float], figure: str) -> str:
    """Show a gain; one that is not in mIoU names what it is in."""
    if figure == "similarity":
        return f"cosine {statistics.mean(gains):+.3f}"
    if figure == "J":
        return f"J {gain(gains)}"
    return gain(gains)


def study_verdicts(_: Sequence[Row]) -> str:
    """Which claims hold, on which measures."""
    return verdicts(study_rows(RESULTS), DIRECTIONS, ALL_MEASURES, REPRODUCE)


def verdicts(
    rows: Sequence[Row], claimed: Sequence[Direction], measures: Sequence[Measure], command: str
) -> str:
    """List claims by verdict, each with its measures."""
    reached: dict[str, dict[str, list[str]]] = {}
    for direction in claimed:
        for measure, gains in compared(rows, direction, measures):
            reached.setdefault(verdict(gains), {}).setdefault(direction.claim, []).append(measure)
    lines = []
    absent = [each.claim for each in claimed if not compared(rows, each, measures)]
    if rows and absent:
        reached[UNMEASURED] = {claim: ["no rows"] for claim in absent}
    for each in (*VERDICTS, UNMEASURED):
        claims = [
            f"{claim} ({' / '.join(where)})" for claim, where in reached.get(each, {}).items()
        ]
        if claims:
            lines.append(f"- **{each}**: {'; '.join(claims)}")
    return "\n".join(lines) or missing(command)


def study_seeds(_: Sequence[Row]) -> str:
    """Which seeds the rows come from."""
    rows = read(RESULTS, KIND)
    if not rows:
        return missing(REPRODUCE)
    seeds = sorted({row["seed"] for row in rows})
    fewer: dict[str, set[int]] = {}
    for row in rows:
        fewer.setdefault(row["variant"], set()).add(row["seed"])
    named = [
        f"{variant} ({list_of(sorted(own))})"
        for variant, own in fewer.items()
        if len(own) < len(seeds)
    ]
    return f"Seeds {list_of(seeds)}; fewer for: {'; '.join(named) or 'nothing'}."


def study_pictures(_: Sequence[Row]) -> str:
    """The pictures that the study drew."""
    return pictures(
        {f"reproduce-vilseg-{name}.svg": what for name, what in PICTURES.items()}, REPRODUCE
    )


def publications(rows: Sequence[Row]) -> str:
    """ViL-Seg's Table 1 as printed, and the bundled model on the unseen classes of coco-mini."""
    table = [number for number in published() if number.source == f"{PAPER}, Table 1"]
    lines = []
    for method in dict.fromkeys(number.method for number in table):
        known = next(number for number in table if number.method == method).protocol["supervision"]
        cells = [
            cell(table, method, name, figure) for name in PAPER_SETS for figure in FIGURES.values()
        ]
        lines.append((method, known, *cells, "–", "–"))
    for row in unseen(rows):
        if row["benchmark"] == "coco-mini":
            scores = (percent(row["mean_iou"]), percent(row["pixel_accuracy"]))
            lines.append(
                (
                    f"`pocket`, protocol {row['protocol_name']}",
                    "photos with captions, labels of whole photos",
                    *["–"] * 6,
                    *scores,
                )
            )
    columns = [
        f"{title}: {figure} %"
        for title in (*PAPER_SETS.values(), "coco-mini")
        for figure in FIGURES.values()
    ]
    return markdown(("method", "learned from", *columns), lines, "ll" + "r" * 8, REPRODUCE)


def history_inference(rows: Sequence[Row]) -> str:
    """Regions and pixels under each way of steadying scores: history."""
    return _history(rows, "inference", "regions, scores")


def history_bootstrap(rows: Sequence[Row]) -> str:
    """How sure the gains of the head are over the choice of photos: history."""
    points, source = history(rows, "clusters")
    lines = [
        (point["tried"], *(f"{100 * point[key]:+.1f}" for key in ("gain", "from", "to")))
        for point in points
        if point["part"] == "bootstrap"
    ]
    header = ("compared on coco-mini", "gain, mIoU %", "from", "to (95 % of draws)")
    return f"{markdown(header, lines, 'lrrr', REPRODUCE)}\n\n{source}"


def history_head(rows: Sequence[Row]) -> str:
    """What made the clustering head learn: history."""
    return _history(rows, "head", "head")


def history_limits(rows: Sequence[Row]) -> str:
    """What would be reached with true regions, names or classes: history."""
    return _history(rows, "limits", "known beforehand")


def history_pocket(rows: Sequence[Row]) -> str:
    """The bundled model with regions and without: history."""
    return _history(rows, "pocket", "model")


def _history(rows: Sequence[Row], part: str, heading: str) -> str:
    points, source = history(rows, "clusters")
    chosen = [point for point in points if point["part"] == part]
    columns = [
        (b, figure)
        for b in ("coco-mini", "camvid")
        for figure in FIGURES
        if any(b in p for p in chosen)
    ]
    lines = [
        (p["tried"], *(percent(p.get(b, {}).get(figure)) for b, figure in columns)) for p in chosen
    ]
    header = (heading, *(f"{b}: {FIGURES[figure]} %" for b, figure in columns))
    return f"{markdown(header, lines, 'l' + 'r' * len(columns), REPRODUCE)}\n\n{source}"


def _paper(table: str, method: str, benchmark: str, metric: str) -> str:
    return cell(
        [number for number in published() if number.source == f"{PAPER}, {table}"],
        method,
        benchmark,
        metric,
    )


def cell(numbers: Sequence[Published], method: str, benchmark: str, metric: str) -> str:
    """Show a printed number, or a dash."""
    key = (method, benchmark, metric)
    return next((n.shown for n in numbers if (n.method, n.benchmark, n.metric) == key), "–")


def list_of(numbers: Sequence[int]) -> str:
    """Say numbers in a row."""
    return ", ".join(map(str, numbers)) or "none"

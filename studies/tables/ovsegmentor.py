"""Tables of `python -m studies ovsegmentor`: OVSegmentor's tables at small scale, beside the
paper's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from maskfree.evaluation.reporting.published import published
from studies.directions import found, spread, together
from studies.ledger import Measure
from studies.ovsegmentor import COMMAND, KIND, measured, study_rows
from studies.ovsegmentor_variants import (
    ABLATIONS,
    ALL_MEASURES,
    AUTHORS,
    BASELINE,
    CAMVID,
    COCO,
    COCO_80,
    COCO_80_BACKGROUND,
    COCO_BACKGROUND,
    COUNTS,
    DIRECTIONS,
    ENTITY,
    FULL,
    GROUPS,
    GROUPVIT,
    LABELS,
    LONG,
    MASKS,
    NOUNS,
    ONE,
    PAPER_FULL,
    PAPER_MASKS,
    RATIOS,
    SHORT,
    TEXT_WORDS,
    WORDS,
    cell,
    mask_loss,
)
from studies.tables.markup import RESULTS, ROOT, Row, history, markdown, missing, percent, pictures
from studies.tables.study import cell as printed
from studies.tables.study import directions, list_of, verdicts

PAPER = "arXiv:2301.09121"
PAPER_THIRD = {
    BASELINE: "OVSegmentor's baseline",
    ENTITY: "OVSegmentor with L_entity alone",
    MASKS: "OVSegmentor with L_mask alone",
    FULL: "OVSegmentor",
    PAPER_MASKS: "OVSegmentor with L_mask alone",
    PAPER_FULL: "OVSegmentor",
}
PAPER_FOURTH = {
    ENTITY: "OVSegmentor, all entities",
    **{name: f"OVSegmentor, {name}" for name in (ONE, NOUNS, LABELS, WORDS, TEXT_WORDS)},
}
PAPER_SEVENTH = {BASELINE: "OVSegmentor's baseline", FULL: "OVSegmentor (CC4M)"}
PAPER_SETS = {
    "voc21": "PASCAL VOC",
    "context60": "PASCAL Context",
    "coco-object": "COCO Object",
    "ade20k": "ADE20K",
}
IMAGES = ROOT / "docs" / "images"
SEEN, UNSEEN = "seen entities", "unseen entities"
PICTURES = {
    f"ratios-{m.benchmark}": f"mIoU on {m.name} by ratio r, for 8 and 16 groups"
    for m in (COCO, CAMVID)
}


def first(_: Sequence[Row]) -> str:
    """The row of Table 1 for the data at hand: ours, and GroupViT's published weights where they
    were measured.
    """
    measures = (COCO_BACKGROUND, COCO_80_BACKGROUND, CAMVID, *AUTHORS)
    rows = _read()
    lines = [
        (variant, *_spreads(rows, variant, measures))
        for variant in (BASELINE, FULL, GROUPVIT)
        if any(row["variant"] == variant for row in rows)
    ]
    return markdown(
        ("", *(f"{m.name}: mIoU %" for m in measures)), lines, "l" + "r" * len(measures), COMMAND
    )


def first_printed(_: Sequence[Row]) -> str:
    """Table 1 as printed, but for a row without background, which is ViL-Seg's."""
    numbers = [number for number in published() if number.source == f"{PAPER}, Table 1"]
    table = [number for number in numbers if number.benchmark in PAPER_SETS]
    lines = []
    for method in dict.fromkeys(number.method for number in table):
        protocol = next(number for number in table if number.method == method).protocol
        cells = [printed(table, method, name, "mIoU") for name in PAPER_SETS]
        lines.append((method, protocol["supervision"], protocol["data"], *cells))
    header = (
        "method",
        "learned from",
        "data",
        *(f"{title}: mIoU %" for title in PAPER_SETS.values()),
    )
    return markdown(header, lines, "lll" + "r" * len(PAPER_SETS), COMMAND)


def third(_: Sequence[Row]) -> str:
    """Table 3: the baseline, each loss alone, both; and what L_mask is in each row."""
    return _ablated("Table 3", PAPER_THIRD, LONG, {name: mask_loss(name) for name in PAPER_THIRD})


def fourth(_: Sequence[Row]) -> str:
    """Table 4: what is masked, and what is asked."""
    return _ablated("Table 4", PAPER_FOURTH, SHORT)


def fifth(_: Sequence[Row]) -> str:
    """Table 5: numbers of groups by ratio."""
    rows, lines = _read(), []
    names = [cell(count, ratio) for count in COUNTS for ratio in RATIOS]
    for measure in measured(rows, names, SHORT):
        values = iter(map(spread, together(rows, names, measure.name)))
        for count in COUNTS:
            cells = [next(values) for _ in RATIOS]
            if any(each != "–" for each in cells):
                lines.append((f"ours, {measure.name}", str(count), *cells))
    for count in COUNTS if lines else ():
        cells = [
            _printed("Table 5", f"OVSegmentor, {count} groups, ratio {ratio:g}", "voc21")
            for ratio in RATIOS
        ]
        lines.append(("the paper, PASCAL VOC", str(count), *cells))
    return markdown(
        ("", "groups", *(f"r = {ratio:g}: mIoU %" for ratio in RATIOS)), lines, "lrrrrr", COMMAND
    )


def sixth(_: Sequence[Row]) -> str:
    """Table 6: what is compared between two photos, masks or groups.

    The paper's numbers are not legible.
    """
    return _ablated("Table 6", {FULL: "", GROUPS: ""}, SHORT)


def seventh(_: Sequence[Row]) -> str:
    """Table 7: classes that are entities and classes that are none."""
    rows, lines = _read(), []
    ours = ((COCO, "mean_iou"), *((m, part) for m in (COCO_80, CAMVID) for part in (SEEN, UNSEEN)))
    for variant, name in PAPER_SEVENTH.items():
        cells = [spread(list(found(rows, variant, m.name, figure).values())) for m, figure in ours]
        numbers = [number for number in published() if number.source == f"{PAPER}, Table 7"]
        paper = [
            printed([n for n in numbers if n.protocol["name"] == part], name, "coco-object", "mIoU")
            for part in (SEEN, UNSEEN)
        ]
        if any(each != "–" for each in cells):
            lines.append((variant, *cells, *paper))
    header = (f"{m.name}: {SEEN if figure == 'mean_iou' else figure}, mIoU %" for m, figure in ours)
    theirs = (f"the paper, COCO: {part}, mIoU %" for part in (SEEN, UNSEEN))
    return markdown(("", *header, *theirs), lines, "l" + "r" * (len(ours) + 2), COMMAND)


def claims(_: Sequence[Row]) -> str:
    """Each claim on each measure: what the better side gains, and whether the seeds agree."""
    return directions(_read(), DIRECTIONS, ALL_MEASURES, COMMAND)


def claims_by_verdict(_: Sequence[Row]) -> str:
    """Which claims hold, on which measures."""
    return verdicts(_read(), DIRECTIONS, ALL_MEASURES, COMMAND)


def seeds(_: Sequence[Row]) -> str:
    """Which seeds the rows of each table come from."""
    rows = _read()
    if not rows:
        return missing(COMMAND)
    lines = []
    for table in sorted({table for ablation in ABLATIONS for table in ablation.tables}):
        names = [ablation.name for ablation in ABLATIONS if table in ablation.tables]
        having = [{row["seed"] for row in rows if row["variant"] == name} for name in names]
        having = [each for each in having if each]
        lines.append(
            f"Table {table}: {list_of(sorted(set[int]().union(*having[:1]).intersection(*having)))}"
        )
    return f"Seeds measured in full: {'; '.join(lines)}."


def drawn(_: Sequence[Row]) -> str:
    """The pictures that the study drew."""
    return pictures({f"{KIND}-{name}.svg": what for name, what in PICTURES.items()}, COMMAND)


def shown(_: Sequence[Row]) -> str:
    """The pictures of groups and entities that `docs/pictures.py` drew."""
    paths = [*sorted(IMAGES.glob("groups-*.jpg")), *sorted(IMAGES.glob("entity-*.jpg"))]
    lines = [f"![{path.stem.replace('-', ' ')}](images/{path.name})" for path in paths]
    return (
        "\n\n".join(lines)
        or "*Not drawn yet; `python docs/pictures.py --groups MODEL --data COCO_MINI` draws them.*"
    )


def _read() -> list[Row]:
    return study_rows(RESULTS)


def _spreads(rows: Sequence[Row], variant: str, measures: Sequence[Measure]) -> list[str]:
    return [spread(list(found(rows, variant, measure.name).values())) for measure in measures]


def _ablated(
    table: str,
    names: dict[str, str],
    measures: Sequence[Measure],
    losses: dict[str, str] | None = None,
) -> str:
    """Variants by measure, over the seeds that all of them have.

    LOSSES say what L_mask is in each. By their NAMES, if any, follow the paper's numbers.
    """
    rows, sets = _read(), ("voc21", "context60") if any(names.values()) else ()
    measures = measured(rows, list(names), measures)
    columns = [map(spread, together(rows, list(names), measure.name)) for measure in measures]
    lines = []
    for (variant, name), *cells in zip(names.items(), *columns, strict=True):
        if any(each != "–" for each in cells):
            used = (losses[variant],) if losses else ()
            theirs = (_printed(table, name, data) for data in sets)
            lines.append((variant, *used, *cells, *theirs))
    first = ("", "L_mask") if losses else ("",)
    header = (*first, *(f"{measure.name}: mIoU %" for measure in measures))
    paper = (f"the paper, {PAPER_SETS[data]}: mIoU %" for data in sets)
    aligned = "l" * len(first) + "r" * (len(measures) + len(sets))
    return markdown((*header, *paper), lines, aligned, COMMAND)


def _printed(table: str, method: str, benchmark: str) -> str:
    return printed(
        [n for n in published() if n.source == f"{PAPER}, {table}"], method, benchmark, "mIoU"
    )


def history_start(rows: Sequence[Row]) -> str:
    """What the recipe's settings come from: history."""
    points, source = history(rows, "ovsegmentor")
    figures = {"mean_iou": "mIoU %", "pixel_accuracy": "pixel accuracy %"}
    lines = [
        (point["tried"], *(percent(point["coco-mini"][figure]) for figure in figures))
        for point in points
    ]
    return f"{markdown(('tried', *figures.values()), lines, 'lrr', COMMAND)}\n\n{source}"


def pocket(rows: Sequence[Row]) -> str:
    """What the small model scores whose recipe is `ovsegmentor_pocket`."""
    lines = [
        (
            row["benchmark"],
            row["protocol"]["names"],
            f"`{row['protocol']['background']}`",
            percent(row["mean_iou"]),
            percent(row["pixel_accuracy"]),
        )
        for row in rows
        if row.get("model") == "ovsegmentor-pocket"
    ]
    header = ("benchmark", "names", "background", "mIoU %", "pixel accuracy %")
    return markdown(
        header, lines, "lllrr", "maskfree evaluate coco-mini --model runs/ovsegmentor_pocket/model"
    )

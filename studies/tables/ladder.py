"""The parts `ladder` and `heads` of `python -m studies vilseg`: from the paper's ViL-Seg to the
bundled model, and heads against K-means.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from studies import vilseg_heads
from studies.directions import found, spread
from studies.ledger import read
from studies.tables.markup import RESULTS, Row, markdown, percent
from studies.tables.scores import MODEL
from studies.vilseg_ladder import COLUMNS, COMMAND, KIND, RUNGS

LONGER = f"{KIND}-200"
"""Kind of the rows of 200 steps, on a GPU."""
CLUSTERED = "pocket-clusters"
GROUPINGS = {
    "clusters": "clusters, hard",
    "soft clusters": "clusters, soft",
    "kmeans": "K-means of each photo",
    "pixels": "single pixels",
}
CLASSES = {
    ("unseen", "unseen"): "unseen classes alone",
    ("all", "unseen"): "unseen among all",
    ("all", "all"): "all as unseen",
}
"""Classes that compete and that are scored, by protocol."""
FIGURES = {"mean_iou": "mIoU", "pixel_accuracy": "pixel accuracy"}


def ladder(rows: Sequence[Row]) -> str:
    """A line a rung, each with all that stands above it, and the bundled model."""
    lines = []
    for kind, longer in ((KIND, ""), (LONGER, ", 200 steps")):
        measured = read(RESULTS, kind)
        reached = {row["variant"] for row in measured}
        for number, rung in enumerate(RUNGS, 1):
            if kind == LONGER and rung not in reached:
                continue

            cells, seeds = [], set[int]()
            for name in COLUMNS:
                for figure in FIGURES:
                    values = found(measured, rung, name, figure)
                    seeds |= values.keys()
                    cells.append(spread(list(values.values())))
            lines.append((str(number), rung + longer, *cells, str(len(seeds) or "–")))

    cells = [percent(_bundled(rows, name, figure)) for name in COLUMNS for figure in FIGURES]
    whole = f"`{MODEL}`: tag scores, trained longer, at its own settings"
    lines.append((str(len(RUNGS) + 1), whole, *cells, "1"))

    columns = (f"{name}: {figure} %" for name in COLUMNS for figure in FIGURES.values())
    return markdown(("", "with all above", *columns, "seeds"), lines, "rlrrrrr", COMMAND)


def heads(rows: Sequence[Row]) -> str:
    """What groups patches, on the same embeddings: a line a variant."""
    kind = vilseg_heads.KIND
    measured = [row for each in rows if each.get("kind") == kind for row in each["rows"]]
    lines = []
    for variant in vilseg_heads.VARIANTS if measured else ():
        cells, seeds = [], set[int]()
        for name in vilseg_heads.BENCHMARKS:
            for figure in ("mean_iou", "named_by_truth"):
                values = found(measured, variant, name, figure)
                seeds |= values.keys()
                cells.append(spread(list(values.values())))
            regions = found(measured, variant, name, "regions").values()
            cells.append(f"{statistics.mean(regions):.1f}" if regions else "–")
        lines.append((variant, *cells, str(len(seeds))))

    parts = ("mIoU %", "accuracy % if named by truth", "regions a photo")
    columns = (f"{name}: {part}" for name in vilseg_heads.BENCHMARKS for part in parts)
    return markdown(("grouping", *columns, "seeds"), lines, "lrrrrrrr", vilseg_heads.COMMAND)


def clusters(rows: Sequence[Row]) -> str:
    """Table 1's protocols on a model with a clustering head, by what groups its patches."""
    chosen = [row for row in rows if row.get("model") == CLUSTERED]
    lines = []
    for grouping, title in GROUPINGS.items():
        cells = []
        for candidates, scored in CLASSES:
            found_rows = [row for row in chosen if _asked(row) == (candidates, scored, grouping)]
            for figure in FIGURES:
                cells.append(percent(found_rows[0][figure] if found_rows else None))
        lines.append((title, *cells))

    columns = (f"{name}: {figure} %" for name in CLASSES.values() for figure in FIGURES.values())
    command = f"maskfree evaluate coco-mini --model runs/{CLUSTERED}/model"
    return markdown(("", *columns), lines if chosen else (), "lrrrrrr", command)


def _asked(row: Row) -> tuple[str, str, str]:
    """Classes that compete, classes that are scored, and what groups patches."""
    protocol = row["protocol"]
    return protocol["candidates"], protocol["scored"], protocol["grouping"]


def _bundled(rows: Sequence[Row], benchmark: str, figure: str) -> float | None:
    """What the bundled model reaches with plain names and without background."""
    for row in rows:
        if (row.get("model"), row.get("benchmark")) != (MODEL, benchmark):
            continue
        protocol = row["protocol"]
        settings = (row["protocol_name"], protocol["names"], protocol["background"])
        if settings == ("own", "plain", "none"):
            return row[figure]
    return None

"""The ladder from the paper's ViL-Seg to the bundled model, of `python -m studies vilseg --part
ladder`.
"""

from __future__ import annotations

from collections.abc import Sequence

from studies.directions import found, spread
from studies.ledger import read
from studies.tables.markup import RESULTS, Row, markdown, percent
from studies.tables.scores import MODEL
from studies.vilseg_ladder import COLUMNS, COMMAND, KIND, RUNGS

FIGURES = {"mean_iou": "mIoU", "pixel_accuracy": "pixel accuracy"}


def ladder(rows: Sequence[Row]) -> str:
    """A line a rung, each with all that stands above it, and the bundled model."""
    measured, lines = read(RESULTS, KIND), []
    for number, rung in enumerate(RUNGS, 1):
        cells, seeds = [], set[int]()
        for name in COLUMNS:
            for figure in FIGURES:
                values = found(measured, rung, name, figure)
                seeds |= values.keys()
                cells.append(spread(list(values.values())))
        lines.append((str(number), rung, *cells, str(len(seeds) or "–")))

    cells = [percent(_bundled(rows, name, figure)) for name in COLUMNS for figure in FIGURES]
    whole = f"`{MODEL}`: tag scores, trained longer, at its own settings"
    lines.append((str(len(RUNGS) + 1), whole, *cells, "1"))

    columns = (f"{name}: {figure} %" for name in COLUMNS for figure in FIGURES.values())
    return markdown(("", "with all above", *columns, "seeds"), lines, "rlrrrrr", COMMAND)


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

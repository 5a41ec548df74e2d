"""How well masks are followed through the sequences of DAVIS: its measures J and F, as its own code takes them.

Source: Perazzi et al. 2016, section 3; davis2017-evaluation, evaluation.py (semi-supervised) and db_statistics.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from maskfree.data.benchmarks.davis import VOID, find_sequences, read_masks
from maskfree.data.photo import read_photo
from maskfree.evaluation.reporting.results import machine, number, versions, write_json
from maskfree.inference.segmenter import Segmenter
from maskfree.inference.tracking import TrackConfig, follow_mask, index_map
from maskfree.metrics import boundary_f, region_similarity
from maskfree.ops.propagation import PropagationConfig
from maskfree.progress import Watch, unwatched

FORMAT = 1
OVERALL = "overall"


class TrackStatistics(NamedTuple):
    """What DAVIS tells of a measure over the frames of an object; NaN without a frame."""

    mean: float
    recall: float  # share of the frames above 0.5
    decay: float  # mean of the first quarter less that of the last


@dataclass(frozen=True)
class TrackRow:
    """J and F of an object in a sequence, or the means over all objects; None where there was no frame to tell."""

    sequence: str
    object: int | None  # None: of all
    frames: int  # that count: not the first, nor the last
    j_mean: float | None
    j_recall: float | None
    j_decay: float | None
    f_mean: float | None
    f_recall: float | None
    f_decay: float | None


def statistics(values: Float[np.ndarray, " t"]) -> TrackStatistics:
    """Summarise a measure over the frames of a sequence, in order, as DAVIS's db_statistics.

    The four parts overlap in one frame each. Differs: theirs count frames in 8 bits, and err beyond 256.

    >>> statistics(np.array([1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]))
    TrackStatistics(mean=0.625, recall=0.5, decay=0.5833333333333333)
    """
    if not len(values):
        return TrackStatistics(math.nan, math.nan, math.nan)
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return TrackStatistics(
        float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean())
    )


def score_masks(
    truth: Sequence[UInt8[np.ndarray, "h w"]],
    predicted: Iterable[UInt8[np.ndarray, "h w"]],
    sequence: str,
) -> list[TrackRow]:
    """Score the masks of a sequence, object numbers, against the TRUTH, a row for each object.

    As in the official semi-supervised task the first frame, whose mask was given, and the last one do not count; the
    objects are those up to the largest number of the first frame, a lost one is an empty mask, VOID pixels are nowhere.
    """
    known = truth[0][truth[0] != VOID]
    objects = range(1, int(known.max(initial=0)) + 1)
    j, f = [], []
    for index, (true, found) in enumerate(zip(truth, predicted, strict=True)):
        if not 0 < index < len(truth) - 1:
            continue
        void = true == VOID
        pairs = [(true == each, found == each) for each in objects]
        j.append([region_similarity(*pair, void) for pair in pairs])
        f.append([boundary_f(*pair, void=void) for pair in pairs])
    values = [np.array(each, float).reshape(len(j), len(objects)).T for each in (j, f)]
    return [
        _row(sequence, number, len(j), [statistics(each[number - 1]) for each in values])
        for number in objects
    ]


def track_benchmark(
    segmenter: Segmenter,
    folder: Path,
    config: PropagationConfig,
    side_px: int,
    *,
    finer: int = 1,
    sequences: Sequence[str] = (),
    watch: Watch = unwatched,
) -> list[TrackRow]:
    """Follow the first masks of the sequences in FOLDER, a DAVIS folder, and score each object; the last row is of all.

    Raises:
        FileNotFoundError: a sequence, a photo or a mask is not there.
        ValueError: a photo or a mask cannot be read, or a first mask is empty.
    """
    settings = TrackConfig(config, side_px, finer)
    rows = []
    for sequence in find_sequences(folder, sequences):
        truth = read_masks(sequence)
        frames = (
            (path.stem, read_photo(path))
            for path in watch(sequence.photos, sequence.name, len(truth))
        )
        followed = follow_mask(segmenter, frames, truth[0], settings)
        rows += score_masks(truth, map(index_map, followed), sequence.name)
    return [*rows, overall(rows)]


def overall(rows: Sequence[TrackRow]) -> TrackRow:
    """Return the means over the objects of all sequences, each of which counts the same."""
    values = {
        name: _mean([getattr(row, name) for row in rows])
        for name in (each.name for each in fields(TrackRow))
        if name[:2] in ("j_", "f_")
    }
    return TrackRow(
        OVERALL, None, sum({row.sequence: row.frames for row in rows}.values()), **values
    )


def write_rows(
    rows: Sequence[TrackRow], segmenter: Segmenter, about: Mapping[str, Any], folder: Path
) -> Path:
    """Write ROWS into FOLDER, together with what they depend on: ABOUT has the command and the settings.

    The file is tracking-MODEL.json; an older one is replaced.
    """
    content = {
        "format": FORMAT,
        "kind": "tracking",
        "model": segmenter.name,
        "weights_sha256": segmenter.weights_hash,
        **about,
        "rows": [asdict(row) for row in rows],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(torch.get_num_threads(), str(segmenter.device)),
    }
    name = re.sub(r"[^a-zA-Z0-9.]+", "-", segmenter.name).strip("-")
    return write_json(content, folder / f"tracking-{name}.json")


def _row(sequence: str, index: int, frames: int, measures: Sequence[TrackStatistics]) -> TrackRow:
    return TrackRow(
        sequence, index, frames, *(number(value) for measure in measures for value in measure)
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

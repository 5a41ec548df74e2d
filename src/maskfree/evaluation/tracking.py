"""Video object segmentation on DAVIS: region similarity J and boundary F-measure.

Source: Perazzi et al. 2016, section 3; davis2017-evaluation, evaluation.py (semi-supervised) and
db_statistics.
"""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from maskfree.data.benchmarks.davis import find_sequences, read_masks
from maskfree.data.photo import read_photo
from maskfree.evaluation.reporting.results import machine, number, versions, write_json
from maskfree.inference.segmenter import Segmenter
from maskfree.inference.tracking import follow_mask, index_map
from maskfree.inference.tracking_config import TrackConfig
from maskfree.metrics import boundary_f, region_similarity
from maskfree.ops.ignore import IGNORE
from maskfree.ops.propagation_config import PropagationConfig
from maskfree.progress import Watch, unwatched

# Version of the file format of `write_rows`.
FORMAT = 1
# Name of the row with the means over all objects, in place of a sequence.
OVERALL = "overall"


class TrackStatistics(NamedTuple):
    """DAVIS statistics of a measure over the frames of an object; NaN without frames."""

    mean: float
    """Mean over the frames."""
    recall: float
    """Share of the frames above 0.5."""
    decay: float
    """Mean of the first quarter of the frames minus that of the last."""


@dataclass(frozen=True)
class TrackRow:
    """J and F of an object in a sequence, or their means over all objects; None without frames."""

    sequence: str
    """Name of the sequence."""
    object: int | None
    """Number of the object, from 1; None for the mean over all objects."""
    frames: int
    """Number of frames that count, which excludes the first and the last."""
    j_mean: float | None
    """Mean of the region similarity J."""
    j_recall: float | None
    """Recall of the region similarity J."""
    j_decay: float | None
    """Decay of the region similarity J."""
    f_mean: float | None
    """Mean of the boundary F-measure."""
    f_recall: float | None
    """Recall of the boundary F-measure."""
    f_decay: float | None
    """Decay of the boundary F-measure."""


def statistics(values: Float[np.ndarray, " t"]) -> TrackStatistics:
    """Summarize a measure over the frames of a sequence, as DAVIS's db_statistics does.

    The four quarters overlap in one frame each.

    Args:
        values: Measure in [0, 1] of each frame, in order.

    Returns:
        Mean, recall and decay.

    Differs: The original counts frames in 8 bits and fails beyond 256.

    Example:
        >>> statistics(np.array([1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]))
        TrackStatistics(mean=0.625, recall=0.5, decay=0.5833333333333333)
    """
    if not len(values):
        return TrackStatistics(math.nan, math.nan, math.nan)

    # Quarter edges as in the original, whose rounding the small offset reproduces.
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
    """Score predicted masks of a sequence against the truth.

    As in the official semi-supervised task, the first frame, whose mask is given, and the last
    frame do not count. Objects are numbered up to the largest number in the first frame; a lost
    object is an empty mask, and IGNORE pixels are ignored.

    Args:
        truth: True object number of each pixel, for each frame.
        predicted: Predicted object number of each pixel, for each frame.
        sequence: Name of the sequence.

    Returns:
        A row for each object.
    """
    # Objects are numbered by the first frame, in which IGNORE is no object.
    known = truth[0][truth[0] != IGNORE]
    objects = range(1, int(known.max(initial=0)) + 1)

    j, f = [], []
    for index, (true, found) in enumerate(zip(truth, predicted, strict=True)):
        # As in the official code, the first and the last frame do not count.
        if not 0 < index < len(truth) - 1:
            continue

        void = true == IGNORE
        for each in objects:
            pair = (true == each, found == each)
            j.append(region_similarity(*pair, void))
            f.append(boundary_f(*pair, void=void))

    # One row per frame and one column per object, also when no frame counts.
    frames = len(j) // max(len(objects), 1)
    j_values = np.array(j, float).reshape(frames, len(objects))
    f_values = np.array(f, float).reshape(frames, len(objects))

    rows = []
    for column, index in enumerate(objects):
        measures = (statistics(j_values[:, column]), statistics(f_values[:, column]))
        rows.append(_row(sequence, index, frames, measures))
    return rows


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
    """Propagate the first masks of DAVIS sequences and score each object.

    Args:
        segmenter: Segmenter whose patch features propagate the masks.
        folder: DAVIS folder.
        config: Settings of the propagation.
        side_px: Shorter side of the resized frames, in pixels.
        finer: Factor on the resolution of the features; see `TrackConfig`.
        sequences: Names of the sequences; empty takes all.
        watch: Wraps the frames to show progress.

    Returns:
        A row for each object, and the mean over all objects last.

    Raises:
        FileNotFoundError: A sequence, photo or mask is missing.
        ValueError: A photo or mask cannot be read, or a first mask is empty.
    """
    settings = TrackConfig(config, side_px, finer)
    rows = []

    for sequence in find_sequences(folder, sequences):
        truth = read_masks(sequence)

        # Frames are decoded one by one: a sequence need not fit in memory.
        shown = watch(sequence.photos, sequence.name, len(truth))
        frames = ((path.stem, read_photo(path)) for path in shown)

        followed = follow_mask(segmenter, frames, truth[0], settings)
        rows += score_masks(truth, map(index_map, followed), sequence.name)

    return [*rows, overall(rows)]


def overall(rows: Sequence[TrackRow]) -> TrackRow:
    """Average rows over the objects of all sequences, with equal weight for each object.

    Args:
        rows: Rows of objects.

    Returns:
        Row of the means; its frames are summed over the sequences.
    """
    means = {}
    for measure in fields(TrackRow):
        if measure.name.startswith(("j_", "f_")):
            means[measure.name] = _mean([getattr(row, measure.name) for row in rows])

    # Objects of a sequence share its frames, which count once.
    frames = {row.sequence: row.frames for row in rows}
    return TrackRow(OVERALL, None, sum(frames.values()), **means)


def write_rows(
    rows: Sequence[TrackRow], segmenter: Segmenter, about: Mapping[str, Any], folder: Path
) -> Path:
    """Write rows and their settings to a JSON file, replacing an older one.

    The file is tracking-MODEL.json, or tracking-words-MODEL-every-N.json of a run by words.

    Args:
        rows: Rows of objects and their mean.
        segmenter: Segmenter that was measured.
        about: Command and settings of the run; "every" is there if no mask was given.
        folder: Folder to write to.

    Returns:
        Path of the file.
    """
    by_words = "every" in about
    kind = "tracking-words" if by_words else "tracking"
    content = {
        "format": FORMAT,
        "kind": kind,
        "model": segmenter.name,
        "weights_sha256": segmenter.weights_hash,
        **about,
        "rows": [asdict(row) for row in rows],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(torch.get_num_threads(), str(segmenter.device)),
    }

    # The model's name may hold characters that a file name should not.
    name = re.sub(r"[^a-zA-Z0-9.]+", "-", segmenter.name).strip("-")
    if by_words:
        name += f"-every-{about['every']}"
    return write_json(content, folder / f"{kind}-{name}.json")


def _row(sequence: str, index: int, frames: int, measures: Sequence[TrackStatistics]) -> TrackRow:
    """Row of an object from the statistics of J and F."""
    values = [number(value) for value in itertools.chain(*measures)]
    return TrackRow(sequence, index, frames, *values)


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean without None; None if nothing is left."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return sum(known) / len(known)

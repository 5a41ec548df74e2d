"""Zero-shot transfer: segment a benchmark by its class names, without training on its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from maskfree.data.benchmarks.catalog import AnnotatedPhoto, Benchmark, files_sha256
from maskfree.evaluation.evaluator import Tally, tally
from maskfree.evaluation.parts import class_parts, half_parts, mean_of_known, of_truth
from maskfree.evaluation.protocol import Protocol, candidates, check, prepare, record
from maskfree.evaluation.reporting.results import Row, machine, number, versions
from maskfree.evaluation.result_cache import DistInfo, ResultCache
from maskfree.inference.segmenter import Segmenter
from maskfree.metrics import boundary_scores, expected_error, scores
from maskfree.progress import Watch, unwatched
from maskfree.results.segmentation import BACKGROUND

# Confusions that a results row lists.
NUM_CONFUSIONS = 10


@dataclass(frozen=True)
class EvalJob:
    """What is measured and how, besides the model and the protocol."""

    benchmark: Benchmark
    """Benchmark to measure on."""
    samples: Sequence[AnnotatedPhoto]
    """Labeled photos to segment."""
    command: str
    """Command that started the run, for the results row."""
    boundaries: bool = False
    """Also measure the boundary F-score, which takes extra time."""
    unfinished: Path | None = None
    """Folder for the counts of a stopped run, to continue from; None starts from scratch."""
    team: DistInfo = field(default_factory=DistInfo)
    """The processes that share the run."""
    watch: Watch = unwatched
    """Wraps the photos to show progress."""


@dataclass(frozen=True)
class EvalResult:
    """A row of results and the mean IoU of each photo."""

    row: Row
    """Row of results over all photos."""
    photos: Float64[np.ndarray, " n"]
    """Mean IoU of each photo, in the order of the photos; NaN where nothing counted."""


def measure(
    segmenter: Segmenter, protocol: Protocol, work: EvalJob, protocol_name: str = "custom"
) -> EvalResult:
    """Measure a segmenter by a protocol, at each photo's full size.

    Args:
        segmenter: Segmenter to measure.
        protocol: Protocol to measure by.
        work: Benchmark, photos and options of the run.
        protocol_name: Name of the protocol in the results row.

    Returns:
        Row of results and the mean IoU of each photo.

    Raises:
        ValueError: The protocol does not fit the benchmark, a photo cannot be read, or its
            prediction differs in size from its truth.
        OSError: A photo or its truth cannot be read.
    """
    prepared = _prepared(segmenter, protocol, work)
    found = _counted(prepared, protocol, work, ())
    return EvalResult(_row(prepared, protocol, work, found, protocol_name), found.photos)


def sweep(
    segmenter: Segmenter,
    protocol: Protocol,
    thresholds: Sequence[float],
    work: EvalJob,
    protocol_name: str = "custom",
) -> list[Row]:
    """Measure a protocol at several background thresholds.

    One forward pass per photo serves all thresholds, except for the score "product", whose
    threshold acts in each window.

    Args:
        segmenter: Segmenter to measure.
        protocol: Protocol, whose background rule is replaced by each threshold.
        thresholds: Background thresholds in ascending order.
        work: Benchmark, photos and options of the run.
        protocol_name: Name of the protocol in the rows.

    Returns:
        A row of results for each threshold; none is selected as the best.

    Raises:
        ValueError: As for `measure`.
        OSError: As for `measure`.
    """
    rules = [replace(protocol, background=f"threshold:{threshold:g}") for threshold in thresholds]

    # The threshold acts inside the network's windows: each needs its own pass.
    if protocol.inference.score == "product":
        return [measure(segmenter, rule, work, protocol_name).row for rule in rules]

    # No score is below -1: every pixel keeps its class, and the thresholds apply afterwards.
    rule = replace(protocol, background="threshold:-1")
    prepared = _prepared(segmenter, rule, work)
    found = _counted(prepared, rule, work, thresholds)

    rows = []
    for index, each in enumerate(rules):
        shown = replace(rule, background=each.background)
        rows.append(_row(prepared, shown, work, found.at(index), protocol_name))
    return rows


def _prepared(segmenter: Segmenter, protocol: Protocol, work: EvalJob) -> Segmenter:
    """Check the protocol and configure the segmenter for it."""
    check(work.benchmark, protocol)
    return prepare(segmenter, work.benchmark, protocol)


def _counted(
    prepared: Segmenter, protocol: Protocol, work: EvalJob, thresholds: Sequence[float]
) -> Tally:
    """Count all photos, continuing from the counts of a stopped run."""
    # Everything that the counts depend on: other runs must not reuse them.
    subject = {
        "benchmark": work.benchmark.name,
        "files": files_sha256(tuple(work.samples)),
        "names": work.benchmark.names_sha256(protocol.names),
        "protocol": record(prepared, protocol),
        "precision": prepared.inference.precision,
        "weights": prepared.weights_hash,
        "runtime": prepared.runtime,
        "calibration": asdict(prepared.calibration),
        "versions": versions(),
        "thresholds": list(thresholds),
        "boundaries": work.boundaries,
    }

    with ResultCache(work.unfinished, subject, work.team) as ledger:
        found = tally(
            prepared,
            work.benchmark,
            work.samples,
            protocol,
            ledger=ledger,
            thresholds=thresholds,
            boundaries=work.boundaries and not thresholds,
            team=work.team,
            watch=work.watch,
        )

    # Reached only if all photos were counted.
    ledger.remove()
    return found


def _row(
    prepared: Segmenter, protocol: Protocol, work: EvalJob, found: Tally, protocol_name: str
) -> Row:
    """Turn the counts of a run into a row of results."""
    benchmark, matrix = work.benchmark, found.counts.confusion[0]

    # Names of the ids in the matrix; background is an id only under a background rule.
    plain = [line.split("/")[0] for line in benchmark.words()]
    names = [plain[i] for _, i in candidates(benchmark, protocol)] + [BACKGROUND]
    names = names[: len(matrix)]

    counted = list(range(len(names)))
    if protocol.scored == "unseen":
        counted = [i for i, name in enumerate(names) if name in benchmark.unseen]

    # Pixel accuracy counts only pixels whose true class is scored.
    whole, part = scores(matrix), scores(of_truth(matrix, counted))
    iou = dict(zip(names, map(number, whole.iou.tolist()), strict=True))

    boundary_f = None
    if found.counts.boundaries is not None:
        boundary_f = number(boundary_scores(found.counts.boundaries).mean_f)

    return Row(
        benchmark=benchmark.name,
        num_photos=len(work.samples),
        files_sha256=files_sha256(tuple(work.samples)),
        names_file=benchmark.names[protocol.names],
        names_sha256=benchmark.names_sha256(protocol.names),
        protocol_name=protocol_name,
        protocol=record(prepared, protocol),
        model=prepared.name,
        weights_sha256=prepared.weights_hash,
        mean_iou=mean_of_known(whole.iou[counted]),
        pixel_accuracy=number(part.pixel_accuracy),
        mean_accuracy=mean_of_known(whole.accuracy[counted]),
        frequency_weighted_iou=number(whole.frequency_weighted_iou),
        boundary_f=boundary_f,
        iou=iou,
        parts=class_parts(benchmark, protocol, iou) | half_parts(matrix, found.even, counted),
        confusions=_confusions(matrix, names),
        seconds_per_photo=found.counts.seconds / len(work.samples),
        command=work.command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        machine=machine(torch.get_num_threads(), prepared.device.type)
        | {"precision": prepared.inference.precision, "runtime": prepared.runtime},
        reliability=_reliability(found.counts.reliability, prepared),
    )


def _reliability(
    counts: Float64[np.ndarray, "15 3"] | None, prepared: Segmenter
) -> dict[str, Any] | None:
    """Calibration error and bins of a row; None if nothing was counted."""
    if counts is None or not counts.any():
        return None

    temperature = prepared.calibration.temperature or 1 / prepared.logit_scale
    return {"ece": expected_error(counts), "temperature": temperature, "bins": shares_of(counts)}


def shares_of(counts: Float64[np.ndarray, "15 3"]) -> list[list[float | None]]:
    """Turn counts of confidences into the bins of a row.

    Args:
        counts: Counts of `metrics.reliability_counts`.

    Returns:
        Share of the pixels, mean confidence and accuracy of each bin; None in an empty one.
    """
    bins: list[list[float | None]] = []
    for pixels, confidence, right in counts.tolist():
        if pixels:
            bins.append([pixels / counts[:, 0].sum(), confidence / pixels, right / pixels])
        else:
            bins.append([0.0, None, None])
    return bins


def _confusions(matrix: Int64[np.ndarray, "k k"], names: Sequence[str]) -> list[list[Any]]:
    """Largest confusions: true class, predicted class and share of all counted pixels."""
    wrong = matrix - np.diag(np.diagonal(matrix))

    # Off-diagonal entries from the largest to the smallest.
    largest = np.argsort(wrong, axis=None, kind="stable")[::-1][:NUM_CONFUSIONS]
    rows = []
    for index in largest.tolist():
        true, predicted = divmod(index, len(names))
        # The sum is 0 where a process has no photo.
        if wrong[true, predicted]:
            share = float(wrong[true, predicted] / matrix.sum())
            rows.append([names[true], names[predicted], share])
    return rows

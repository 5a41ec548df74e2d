"""Count a benchmark photo by photo, resumable after a stop and shared between processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt, UInt8
from PIL import Image

from maskfree.data.benchmarks.catalog import AnnotatedPhoto, Benchmark
from maskfree.data.photo import read_photo
from maskfree.evaluation.protocol import Protocol, candidates
from maskfree.evaluation.result_cache import Counts, DistInfo, ResultCache
from maskfree.inference.segmenter import Segmenter
from maskfree.metrics import (
    NUM_BINS,
    boundary_counts,
    confusion,
    reliability_counts,
    scores,
    sweep_confusions,
)
from maskfree.ops.ignore import IGNORE
from maskfree.progress import Watch, unwatched
from maskfree.results.segmentation import Segmentation


@dataclass(frozen=True)
class Tally:
    """Summed counts of a benchmark and the mean IoU of each photo."""

    counts: Counts
    """Counts summed over all photos and processes."""
    photos: Float64[np.ndarray, " n"]
    """Mean IoU of each photo, in the order of the photos; NaN where nothing counted."""
    even: Int64[np.ndarray, "t k k"] | None = None
    """Part of `counts.confusion` that photos of even numbers have; None if no halves are told
    apart."""

    def at(self, index: int) -> Tally:
        """Take one threshold of a sweep.

        Args:
            index: Place of the threshold.

        Returns:
            The same with one confusion matrix; `photos` is as it was.
        """
        only = slice(index, index + 1)
        counts = replace(self.counts, confusion=self.counts.confusion[only])
        even = None
        if self.even is not None:
            even = self.even[only]
        return replace(self, counts=counts, even=even)


def tally(  # noqa: PLR0913 - the runner of one measurement
    segmenter: Segmenter,
    benchmark: Benchmark,
    samples: Sequence[AnnotatedPhoto],
    protocol: Protocol,
    *,
    ledger: ResultCache,
    thresholds: Sequence[float] = (),
    boundaries: bool = False,
    team: DistInfo = DistInfo(),  # noqa: B008 - frozen
    watch: Watch = unwatched,
) -> Tally:
    """Segment photos and compare the predictions with the truth at each photo's full size.

    Without a background rule, pixels of no class are left out; with one, background is a further
    class.

    Args:
        segmenter: Segmenter prepared for the protocol, see `protocol.prepare`.
        benchmark: Benchmark that the photos belong to.
        samples: All labeled photos of the run; each process takes its share.
        protocol: Evaluation protocol.
        ledger: Cache of counts; photos found in it are not segmented again.
        thresholds: Background thresholds in ascending order; everything is counted once for each,
            as if it were the threshold of the background rule. Empty counts once.
        boundaries: Whether to count boundary pixels, too.
        team: The processes that share the run.
        watch: Wraps the photos to show progress.

    Returns:
        Counts summed over all processes and the mean IoU of each photo.

    Raises:
        ValueError: A photo cannot be read, or its prediction differs in size from its truth.
        OSError: A photo or its truth cannot be read.
    """
    lookup, num_classes = truth_lookup(benchmark, protocol)
    own = samples[team.index :: team.count]

    # Photos that were counted before a stop are not segmented again.
    todo = [sample for sample in own if sample.key not in ledger.found]

    for sample, photo, truth in _ahead(todo, watch):
        start = time.perf_counter()
        result = segmenter(photo)
        seconds = time.perf_counter() - start

        # Translate ids of the benchmark into ids of the candidates.
        truth = lookup[truth]

        edges, reliability = None, None
        try:
            if thresholds:
                matrices = sweep_confusions(
                    truth,
                    result.labels,
                    result.scores,
                    thresholds,
                    num_classes - 1,
                    num_classes,
                    IGNORE,
                )
            else:
                matrices = _confusion(truth, result.labels, num_classes, segmenter.device)[None]
                reliability = _reliability(truth, result)
            if boundaries:
                edges = boundary_counts(truth, result.labels, num_classes, IGNORE)
        except ValueError as error:
            raise ValueError(f"{sample.photo}: {error}") from error

        # Written after each photo, so that a stop loses one photo at most.
        ledger.add(sample.key, Counts(matrices, edges, seconds, reliability))

    # Start of the sums: a process may have no photo at all.
    nothing = Counts(
        np.zeros((len(thresholds) or 1, num_classes, num_classes), np.int64), None, 0.0
    )
    if boundaries:
        nothing = replace(nothing, boundaries=np.zeros((num_classes, 4), np.int64))
    if not thresholds:
        nothing = replace(nothing, reliability=np.zeros((NUM_BINS, 3)))

    counted = [ledger.found[sample.key] for sample in own]
    summed = _sum(counted, nothing, len(samples), team)
    if not (benchmark.halves and all(_number(sample) is not None for sample in samples)):
        return summed

    # Odd photos have the rest of the counts.
    even = nothing.confusion
    for sample, photo_counts in zip(own, counted, strict=True):
        if (_number(sample) or 0) % 2 == 0:
            even = even + photo_counts.confusion
    return replace(summed, even=team.total(torch.from_numpy(even)).numpy())


def _number(sample: AnnotatedPhoto) -> int | None:
    """Number that the photo's file is named by; None for another name."""
    stem = Path(sample.key).stem
    return int(stem) if stem.isascii() and stem.isdecimal() else None


def _confusion(
    truth: UInt8[np.ndarray, "h w"],
    labels: UInt[np.ndarray, "h w"],
    num_classes: int,
    device: torch.device,
) -> Int64[np.ndarray, "k k"]:
    """Confusion matrix, computed on the device that the network runs on."""
    if device.type == "cpu":
        return confusion(truth, labels, num_classes, IGNORE)
    first, second = (torch.from_numpy(side.astype(np.int64)).to(device) for side in (truth, labels))
    return confusion(first, second, num_classes, IGNORE)


def _reliability(
    truth: UInt8[np.ndarray, "h w"], result: Segmentation
) -> Float64[np.ndarray, "15 3"]:
    """Confidence of the pixels that count, against whether their label is the true one."""
    assert result.confidence is not None
    counted = truth != IGNORE
    return reliability_counts(result.confidence[counted], truth[counted] == result.labels[counted])


def truth_lookup(benchmark: Benchmark, protocol: Protocol) -> tuple[UInt8[np.ndarray, 256], int]:
    """Map the values of truth maps to candidate ids.

    Args:
        benchmark: Benchmark that the truth maps belong to.
        protocol: Protocol, which selects the candidates and the background rule.

    Returns:
        Table from truth value to candidate id, with IGNORE for values that do not count, and the
        number of ids, which includes background if the protocol has a background rule.
    """
    lines = candidates(benchmark, protocol)
    lookup = np.full(256, IGNORE, np.uint8)
    for new, (_, old) in enumerate(lines):
        lookup[old] = new

    # Without a background rule, background pixels stay IGNORE.
    if protocol.background == "none":
        return lookup, len(lines)
    lookup[len(benchmark.words())] = len(lines)
    return lookup, len(lines) + 1


def _ahead(
    samples: Sequence[AnnotatedPhoto], watch: Watch
) -> Iterator[tuple[AnnotatedPhoto, Image.Image, UInt8[np.ndarray, "h w"]]]:
    """Decode photos and truth maps in a thread, one ahead of the network."""
    if not samples:
        return

    with ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(_decode, samples[0])
        for number, sample in enumerate(watch(samples), 1):
            photo, truth = decoded.result()

            # Start the next one before the network runs on this one.
            if number < len(samples):
                decoded = pool.submit(_decode, samples[number])
            yield sample, photo, truth


def _decode(sample: AnnotatedPhoto) -> tuple[Image.Image, UInt8[np.ndarray, "h w"]]:
    """Read a photo and its truth map."""
    return read_photo(sample.photo), sample.read_truth()


def _sum(counts: Sequence[Counts], nothing: Counts, num_photos: int, team: DistInfo) -> Tally:
    """Sum the counts of this process, then those of all processes."""
    # Mean IoU of each photo, and 1 if it has one.
    each = np.zeros((num_photos, 2))
    for place, photo in zip(range(team.index, num_photos, team.count), counts, strict=True):
        found = scores(photo.confusion[0]).mean_iou
        if not np.isnan(found):
            each[place] = (found, 1)

    def total(parts: Sequence[np.ndarray], start: np.ndarray) -> np.ndarray:
        """Sum arrays over photos and processes.

        Args:
            parts: Arrays of this process, all of one shape.
            start: Value that the sum starts from.

        Returns:
            The sum over all processes.
        """
        return team.total(torch.from_numpy(sum(parts, start=start))).numpy()

    # Each process fills in its own photos; the sum holds all of them.
    means, known = total([], each).T
    summed = Counts(
        confusion=total([photo.confusion for photo in counts], nothing.confusion),
        boundaries=None,
        seconds=total([np.array([photo.seconds]) for photo in counts], np.zeros(1)).item(),
    )
    if nothing.boundaries is not None:
        edges = [photo.boundaries for photo in counts if photo.boundaries is not None]
        summed = replace(summed, boundaries=total(edges, nothing.boundaries))
    if nothing.reliability is not None:
        bins = [photo.reliability for photo in counts if photo.reliability is not None]
        summed = replace(summed, reliability=total(bins, nothing.reliability))

    return Tally(summed, np.where(known > 0, means, np.nan))

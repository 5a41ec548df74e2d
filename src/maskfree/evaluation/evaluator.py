"""Count a benchmark photo by photo, resumable after a stop and shared between processes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt, UInt8
from PIL import Image
from torch import Tensor

from maskfree.data.benchmarks.catalog import Benchmark, LabeledPhoto
from maskfree.data.photo import read_photo
from maskfree.evaluation.protocol import Protocol, candidates
from maskfree.files.leftovers import writing
from maskfree.inference.segmenter import Segmenter
from maskfree.metrics import boundary_counts, confusion, scores, sweep_confusions
from maskfree.ops.ignore import IGNORE
from maskfree.progress import Watch, unwatched


@dataclass(frozen=True)
class DistInfo:
    """The processes that share a run.

    Process `index` of `count` takes every count-th photo, starting at number `index`.
    """

    index: int = 0
    """Rank of this process, from 0."""
    count: int = 1
    """Number of processes."""
    total: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)
    """Sums a tensor over all processes."""


@dataclass(frozen=True)
class Counts:
    """Counts of one photo or of a whole benchmark; counts of several photos add up."""

    confusion: Int64[np.ndarray, "t k k"]
    """Pixels by true and predicted class; a matrix per threshold of a sweep, otherwise one."""
    boundaries: Int64[np.ndarray, "k 4"] | None
    """Boundary counts per class, see `metrics.boundary_counts`; None if not measured."""
    seconds: float
    """Segmentation time from decoded photo to label map, without the counting."""


@dataclass(frozen=True)
class Tally:
    """Summed counts of a benchmark and the mean IoU of each photo."""

    counts: Counts
    """Counts summed over all photos and processes."""
    photos: Float64[np.ndarray, " n"]
    """Mean IoU of each photo, in the order of the photos; NaN where nothing counted."""


class ResultCache(AbstractContextManager["ResultCache"]):
    """Cache of the counts of each photo in a JSON Lines file, so that a stopped run can continue.

    A line that a killed process left half written is dropped. Each process has its own file, and
    the file name contains a hash of the settings, so that runs with other settings never share
    counts.
    """

    def __init__(self, folder: Path | None, subject: dict[str, Any], team: DistInfo = DistInfo()):
        """Open the cache and read the counts of earlier runs with the same settings.

        Args:
            folder: Folder for the cache files, created if missing; None caches in memory only.
            subject: JSON-serializable settings that the counts depend on.
            team: The processes that share the run.
        """
        self.found: dict[str, Counts] = {}
        self._file: TextIO | None = None
        self._paths: list[Path] = []
        if folder is None:
            return

        # 24 hex digits tell settings apart and keep the file name short.
        name = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:24]
        folder.mkdir(parents=True, exist_ok=True)

        # Read the files of all processes, also of a run with another number of them.
        for path in sorted(folder.glob(f"{name}.*.jsonl")):
            self.found |= dict(_read_lines(path))
            if team.index == 0 and int(path.suffixes[0][1:]) >= team.count:
                # A file of an earlier run with more processes.
                self._paths.append(path)

        # Append to this process's own file.
        self._paths.append(folder / f"{name}.{team.index}.jsonl")
        self._file = self._paths[-1].open("a", encoding="utf-8")

        # The line break ends a line that a killed process left half written.
        self._file.write("\n")

    def add(self, key: str, counts: Counts) -> None:
        """Store the counts of a photo.

        Args:
            key: Key of the photo, unique in the benchmark.
            counts: Its counts.
        """
        self.found[key] = counts
        if self._file:
            # Most classes do not occur in a photo, so only nonzero counts are written.
            where = np.flatnonzero(counts.confusion)
            line = {
                "key": key,
                "shape": counts.confusion.shape,
                "where": where.tolist(),
                "counts": counts.confusion.ravel()[where].tolist(),
                "boundaries": None if counts.boundaries is None else counts.boundaries.tolist(),
                "seconds": counts.seconds,
            }

            with writing(self._paths[-1]):
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()

    def remove(self) -> None:
        """Close and delete this process's file and files of ranks that no longer exist.

        Call it when the final numbers were stored elsewhere.
        """
        self.__exit__()

        for path in self._paths:
            path.unlink(missing_ok=True)

        for folder in {path.parent for path in self._paths}:
            # Other stopped runs may still have files there.
            with suppress(OSError):
                folder.rmdir()

    def __exit__(self, *error: object) -> None:
        if self._file:
            # Closing tries again to write what could not be written before.
            with writing(self._paths[-1]):
                self._file.close()


def tally(  # noqa: PLR0913 - the runner of one measurement
    segmenter: Segmenter,
    benchmark: Benchmark,
    samples: Sequence[LabeledPhoto],
    protocol: Protocol,
    *,
    ledger: ResultCache,
    thresholds: Sequence[float] = (),
    boundaries: bool = False,
    team: DistInfo = DistInfo(),
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
            edges = (
                boundary_counts(truth, result.labels, num_classes, IGNORE) if boundaries else None
            )
        except ValueError as error:
            raise ValueError(f"{sample.photo}: {error}") from error

        # Written after each photo, so that a stop loses one photo at most.
        ledger.add(sample.key, Counts(matrices, edges, seconds))

    # Start of the sums: a process may have no photo at all.
    nothing = Counts(
        np.zeros((len(thresholds) or 1, num_classes, num_classes), np.int64),
        np.zeros((num_classes, 4), np.int64) if boundaries else None,
        0.0,
    )

    return _sum([ledger.found[sample.key] for sample in own], nothing, len(samples), team)


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


def truth_lookup(benchmark: Benchmark, protocol: Protocol) -> tuple[UInt8[np.ndarray, 256], int]:
    """Map the values of truth maps to candidate ids.

    Args:
        benchmark: Benchmark that the truth maps belong to.
        protocol: Protocol, which selects the candidates and the background rule.

    Returns:
        Table from truth value to candidate id, with IGNORE for values that do not count, and the
        number of ids, which includes background if the protocol has a background rule.
    """
    lines, num_words = candidates(benchmark, protocol), len(benchmark.words())
    lookup = np.full(256, IGNORE, np.uint8)
    for new, (_, old) in enumerate(lines):
        lookup[old] = new

    # Without a background rule, background pixels stay IGNORE.
    if protocol.background == "none":
        return lookup, len(lines)
    lookup[num_words] = len(lines)
    return lookup, len(lines) + 1


def _ahead(
    samples: Sequence[LabeledPhoto], watch: Watch
) -> Iterator[tuple[LabeledPhoto, Image.Image, UInt8[np.ndarray, "h w"]]]:
    """Decode photos and truth maps in a thread, one ahead of the network."""
    with ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(_decode, samples[0]) if samples else None
        for number, sample in enumerate(watch(samples), 1):
            assert decoded is not None
            photo, truth = decoded.result()

            # Start the next one before the network runs on this one.
            decoded = pool.submit(_decode, samples[number]) if number < len(samples) else None
            yield sample, photo, truth


def _decode(sample: LabeledPhoto) -> tuple[Image.Image, UInt8[np.ndarray, "h w"]]:
    """Read a photo and its truth map."""
    return read_photo(sample.photo), sample.read_truth()


def _sum(counts: Sequence[Counts], nothing: Counts, num_photos: int, team: DistInfo) -> Tally:
    """Sum the counts of this process, then those of all processes."""
    # Mean IoU of each photo, and 1 if it has one.
    each = np.zeros((num_photos, 2))
    for place, photo in zip(range(team.index, num_photos, team.count), counts, strict=True):
        found = scores(photo.confusion[0]).mean_iou
        each[place] = (0, 0) if np.isnan(found) else (found, 1)

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
    edges = [c.boundaries for c in counts if c.boundaries is not None]
    summed = Counts(
        confusion=total([c.confusion for c in counts], nothing.confusion),
        boundaries=None if nothing.boundaries is None else total(edges, nothing.boundaries),
        seconds=total([np.array([c.seconds]) for c in counts], np.zeros(1)).item(),
    )

    return Tally(summed, np.where(known > 0, means, np.nan))


def _read_lines(path: Path) -> Iterator[tuple[str, Counts]]:
    """Read keys and counts from a cache file, without its broken lines."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)

            # Restore the dense matrix from its nonzero entries.
            matrix = np.zeros(entry["shape"], np.int64)
            matrix.ravel()[entry["where"]] = entry["counts"]
            edges = entry["boundaries"]

            yield (
                entry["key"],
                Counts(
                    matrix, None if edges is None else np.array(edges, np.int64), entry["seconds"]
                ),
            )
        except (ValueError, KeyError, TypeError, IndexError):
            # An empty or truncated line: its photo is counted again.
            continue

"""Counting a benchmark photo by photo, so that a run that was stopped goes on and several processes share the work."""

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

from maskfree.data.benchmarks.catalog import IGNORE, Benchmark, LabeledPhoto
from maskfree.data.photo import read_photo
from maskfree.evaluation.protocol import Protocol, candidates
from maskfree.files.leftovers import writing
from maskfree.inference.segmenter import Segmenter
from maskfree.metrics import boundary_counts, confusion, scores, sweep_confusions
from maskfree.progress import Watch, unwatched


@dataclass(frozen=True)
class DistInfo:
    """The processes that share a run; this one has every COUNT-th photo from number INDEX on."""

    index: int = 0
    count: int = 1
    total: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)
    """Sum a tensor over the processes."""


@dataclass(frozen=True)
class Counts:
    """What is counted on one photo, or on a whole benchmark; sums add up."""

    confusion: Int64[
        np.ndarray, "t k k"
    ]  # true class by predicted class, for each threshold of a sweep, else once
    boundaries: Int64[np.ndarray, "k 4"] | None  # see `metrics.boundary_counts`
    seconds: float  # decoding included, truth and counting not


@dataclass(frozen=True)
class Tally:
    """What was counted on a benchmark, and how each photo fared: its mean IoU, or NaN, in the order of the photos."""

    counts: Counts
    photos: Float64[np.ndarray, " n"]


class ResultCache(AbstractContextManager["ResultCache"]):
    """Counts photo by photo in a file of the folder UNFINISHED, which goes when the work is done.

    What a process that was killed left half written is dropped. One file per process, under a name that says what is
    counted, so that other settings never meet.
    """

    def __init__(self, folder: Path | None, subject: dict[str, Any], team: DistInfo = DistInfo()):
        self.found: dict[str, Counts] = {}
        self._file: TextIO | None = None
        self._paths: list[Path] = []
        if folder is None:
            return
        name = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:24]
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob(f"{name}.*.jsonl")):
            self.found |= dict(_read_lines(path))
            if team.index == 0 and int(path.suffixes[0][1:]) >= team.count:
                self._paths.append(path)  # of an earlier run with more processes
        self._paths.append(folder / f"{name}.{team.index}.jsonl")
        self._file = self._paths[-1].open("a", encoding="utf-8")
        self._file.write("\n")  # ends what a killed process may have left

    def add(self, key: str, counts: Counts) -> None:
        """Note a photo's counts."""
        self.found[key] = counts
        if self._file:
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
        """Delete this process's file, and those that no process has: the numbers are elsewhere now."""
        self.__exit__()
        for path in self._paths:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in self._paths}:
            with suppress(OSError):  # what another run has stopped with may still wait there
                folder.rmdir()

    def __exit__(self, *error: object) -> None:
        if self._file:
            with writing(self._paths[-1]):  # what could not be written is tried again
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
    """Label SAMPLES with a SEGMENTER that is prepared for PROTOCOL, and compare at each photo's full size.

    Without a background rule the pixels of no class are left out; with one they are a further class. With THRESHOLDS,
    which ascend, everything is counted once for each, as if the rule were that threshold.

    Raises:
        ValueError, OSError: a photo cannot be read, or is labeled at another size than its truth.
    """
    lookup, num_classes = truth_lookup(benchmark, protocol)
    own = samples[team.index :: team.count]
    todo = [sample for sample in own if sample.key not in ledger.found]
    for sample, photo, truth in _ahead(todo, watch):
        start = time.perf_counter()
        result = segmenter(photo)
        seconds = time.perf_counter() - start
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
        ledger.add(sample.key, Counts(matrices, edges, seconds))
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
    """Count on the device that the network runs on."""
    if device.type == "cpu":
        return confusion(truth, labels, num_classes, IGNORE)
    first, second = (torch.from_numpy(side.astype(np.int64)).to(device) for side in (truth, labels))
    return confusion(first, second, num_classes, IGNORE)


def truth_lookup(benchmark: Benchmark, protocol: Protocol) -> tuple[UInt8[np.ndarray, 256], int]:
    """Return which id each value of the truth has among the candidates, and how many ids there are."""
    lines, num_words = candidates(benchmark, protocol), len(benchmark.words())
    lookup = np.full(256, IGNORE, np.uint8)
    for new, (_, old) in enumerate(lines):
        lookup[old] = new
    if protocol.background == "none":
        return lookup, len(lines)
    lookup[num_words] = len(lines)
    return lookup, len(lines) + 1


def _ahead(
    samples: Sequence[LabeledPhoto], watch: Watch
) -> Iterator[tuple[LabeledPhoto, Image.Image, UInt8[np.ndarray, "h w"]]]:
    """Decode photos and truths in a thread, one ahead, while the network runs."""
    with ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(_decode, samples[0]) if samples else None
        for number, sample in enumerate(watch(samples), 1):
            assert decoded is not None
            photo, truth = decoded.result()
            decoded = pool.submit(_decode, samples[number]) if number < len(samples) else None
            yield sample, photo, truth


def _decode(sample: LabeledPhoto) -> tuple[Image.Image, UInt8[np.ndarray, "h w"]]:
    return read_photo(sample.photo), sample.read_truth()


def _sum(counts: Sequence[Counts], nothing: Counts, num_photos: int, team: DistInfo) -> Tally:
    """Add up this process's counts, then once those of all processes."""
    each = np.zeros((num_photos, 2))  # its mean IoU, and whether it has one
    for place, photo in zip(range(team.index, num_photos, team.count), counts, strict=True):
        found = scores(photo.confusion[0]).mean_iou
        each[place] = (0, 0) if np.isnan(found) else (found, 1)

    def total(parts: Sequence[np.ndarray], start: np.ndarray) -> np.ndarray:
        return team.total(torch.from_numpy(sum(parts, start=start))).numpy()

    means, known = total([], each).T
    edges = [c.boundaries for c in counts if c.boundaries is not None]
    summed = Counts(
        confusion=total([c.confusion for c in counts], nothing.confusion),
        boundaries=None if nothing.boundaries is None else total(edges, nothing.boundaries),
        seconds=total([np.array([c.seconds]) for c in counts], np.zeros(1)).item(),
    )
    return Tally(summed, np.where(known > 0, means, np.nan))


def _read_lines(path: Path) -> Iterator[tuple[str, Counts]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
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
            continue  # an empty line, or one that was cut off: that photo is counted again

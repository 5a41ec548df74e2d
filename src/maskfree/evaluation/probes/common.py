"""Shared code of the probes of frozen embeddings: training splits, pixel counts and results rows.

A probe is trained on masks: it measures what the embeddings contain, not what the model can do
without masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from PIL import Image
from torch import Tensor

from maskfree.data.benchmarks.catalog import BENCHMARKS, AnnotatedPhoto, Benchmark, files_sha256
from maskfree.data.photo import read_photo
from maskfree.evaluation.probes import config as constants
from maskfree.evaluation.probes.config import KnnConfig, LinearConfig
from maskfree.evaluation.reporting.results import Row, machine, number, versions
from maskfree.inference.config import MAX_LONG_PX
from maskfree.inference.features import CELLS_PER_PATCH
from maskfree.inference.segmenter import Segmenter
from maskfree.metrics import SegmentationScores, confusion, scores
from maskfree.ops.ignore import IGNORE
from maskfree.progress import Watch
from maskfree.results.segmentation import BACKGROUND

_VOC_TRAINING = ("voc-trainaug", "voc-train")
TRAINING = {"camvid": ("camvid-train",), "voc20": _VOC_TRAINING, "voc21": _VOC_TRAINING}
"""Benchmarks whose training photos are cataloged as benchmarks of their own: the first that is
complete serves, else the last."""
HALVES = "halves"
"""Name of the split in which each half of the photos is the training set of the other."""


@dataclass(frozen=True)
class Split:
    """Training photos and test photos."""

    train: tuple[AnnotatedPhoto, ...]
    """Photos whose masks train the probe."""
    test: tuple[AnnotatedPhoto, ...]
    """Photos that the probe labels."""


@dataclass(frozen=True, eq=False)
class ProbeRow:
    """Counts of a probe; rows with the same classes and other test photos can be added."""

    classes: tuple[str, ...]
    """Class names, in the order of the ids."""
    confusion: Int64[np.ndarray, "k k"]
    """Pixels by true and predicted class."""
    num_train: int
    """Number of training photos, summed over added rows."""
    num_test: int
    """Number of test photos."""
    seconds: float
    """Time from the decoded test photos to their label maps."""

    @property
    def scores(self) -> SegmentationScores:
        """Segmentation scores in [0, 1].

        Returns:
            Scores of the confusion matrix.
        """
        return scores(self.confusion)

    @property
    def iou(self) -> dict[str, float | None]:
        """IoU of each class.

        Returns:
            IoU in [0, 1] by class name; None for a class that is neither true nor predicted
            anywhere.
        """
        return dict(zip(self.classes, map(number, self.scores.iou.tolist()), strict=True))

    def __add__(self, other: ProbeRow) -> ProbeRow:
        """Sum the counts of two rows."""
        assert self.classes == other.classes, "rows of other classes cannot be added"

        return ProbeRow(
            self.classes,
            self.confusion + other.confusion,
            self.num_train + other.num_train,
            self.num_test + other.num_test,
            self.seconds + other.seconds,
        )


def classes_of(benchmark: Benchmark) -> tuple[str, ...]:
    """Name the ids of a benchmark's truth maps.

    Args:
        benchmark: Benchmark that the truth maps belong to.

    Returns:
        Class names, and background last if the benchmark labels it.
    """
    names = tuple(line.split("/")[0] for line in benchmark.words())
    return (*names, BACKGROUND) if benchmark.background else names


def splits(benchmark: Benchmark, root: Path) -> tuple[list[Split], str]:
    """Split a benchmark into training and test photos.

    A benchmark without training photos is split into two halves, by every other photo, and each
    half is the training set of the other.

    Args:
        benchmark: Benchmark to measure on.
        root: Folder with the data of all benchmarks.

    Returns:
        The splits, and the name of the training benchmark or `HALVES`.

    Raises:
        ValueError: Files do not fit each other, or there are fewer than two photos.
        OSError: A file is missing.
    """
    test = benchmark.samples(root)

    if names := TRAINING.get(benchmark.name):
        name = names[-1]
        for candidate in reversed(names):
            chosen = BENCHMARKS[candidate]
            if chosen.layout.missing(chosen.find(root)) is None:
                name = candidate

        train = replace(BENCHMARKS[name], background=benchmark.background)
        return [Split(train.samples(root), test)], name

    if len(test) < 2:
        raise ValueError(
            f"{benchmark.name} has {len(test)} photo: one half teaches the other, so two are needed"
        )

    # Both halves are measured, so that each photo is a test photo once.
    halves = test[::2], test[1::2]
    return [Split(*halves), Split(*halves[::-1])], HALVES


def opened(
    samples: Sequence[AnnotatedPhoto], watch: Watch
) -> Iterator[tuple[Image.Image, UInt8[np.ndarray, "h w"]]]:
    """Decode photos and truth maps one by one.

    Args:
        samples: Labeled photos.
        watch: Wraps the photos to show progress.

    Yields:
        Photo and truth map of each sample.

    Raises:
        ValueError: A photo cannot be read, or its size differs from that of its truth map.
        OSError: A photo or its truth map cannot be read.
    """
    for sample in watch(samples):
        photo, truth = read_photo(sample.photo), sample.read_truth()
        if truth.shape != (photo.height, photo.width):
            size = f"{truth.shape[1]}x{truth.shape[0]}"
            raise ValueError(
                f"{sample.photo} is {photo.width}x{photo.height} but its truth map {size}"
            )

        yield photo, truth


def spread(values: Tensor, height: int, width: int) -> Tensor:
    """Resize a map by nearest neighbor: each pixel takes the value of the cell that its center lies
    in.

    Args:
        values: Map of cells (h w).
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.

    Returns:
        Map of height x width pixels.
    """
    # Pixel centers in units of cells, rounded down to the cell.
    rows = _nearest_cells(height, values.shape[0]).to(values.device)
    columns = _nearest_cells(width, values.shape[1]).to(values.device)
    return values[rows[:, None], columns]


def _nearest_cells(length: int, cells: int) -> Int[Tensor, " n"]:
    """Cell that the center of each pixel lies in, along one axis."""
    places = (torch.arange(length) + 0.5) * cells / length
    return places.long().clamp_(max=cells - 1)


def count(
    truth: UInt8[np.ndarray, "h w"], labels: Tensor, num_classes: int
) -> Int64[np.ndarray, "k k"]:
    """Count the pixels of a labeled photo by true and predicted class.

    Args:
        truth: True class of each pixel, or IGNORE.
        labels: Predicted class of each pixel (h w).
        num_classes: Number of classes.

    Returns:
        Pixels by true and predicted class.
    """
    return confusion(truth, labels.cpu().numpy().astype(np.uint8), num_classes, IGNORE)


def results_row(
    row: ProbeRow,
    benchmark: Benchmark,
    chosen: Sequence[Split],
    taught_by: str,
    segmenter: Segmenter,
    config: KnnConfig | LinearConfig,
    command: str,
) -> Row:
    """Make a results row, whose protocol spells out the probe and its training photos.

    Args:
        row: Counts of the probe.
        benchmark: Benchmark that was measured.
        chosen: Splits that were measured.
        taught_by: Name of the training photos, see `splits`.
        segmenter: Segmenter whose embeddings were probed.
        config: Settings of the probe.
        command: Command that started the run.

    Returns:
        Row of results.
    """
    train, test = [], []
    for split in chosen:
        train += split.train
        test += split.test

    # Sorted by key, so that the hash does not depend on the order of the splits.
    test.sort(key=lambda sample: sample.key)

    found = row.scores
    inference = {
        "side_px": segmenter.inference.side_px,
        "max_long_px": MAX_LONG_PX,
        "precision": segmenter.inference.precision,
    }

    # Fields of `Protocol` that apply, then those of the probe.
    protocol: dict[str, Any] = {
        "names": "plain",
        "background": f"words:{BACKGROUND}" if benchmark.background else "none",
        "candidates": "all",
        "scored": "all",
        "refine": "none",
        **inference,
        "taught_by": taught_by,
        "taught_by_sha256": files_sha256(tuple(train)),
        **_spelled(config),
    }

    return Row(
        benchmark=benchmark.name,
        num_photos=row.num_test,
        files_sha256=files_sha256(tuple(test)),
        names_file=benchmark.names["plain"],
        names_sha256=benchmark.names_sha256("plain"),
        protocol_name="knn" if isinstance(config, KnnConfig) else "linear",
        protocol=protocol,
        model=segmenter.name,
        weights_sha256=segmenter.weights_hash,
        mean_iou=number(found.mean_iou),
        pixel_accuracy=number(found.pixel_accuracy),
        mean_accuracy=number(found.mean_accuracy),
        frequency_weighted_iou=number(found.frequency_weighted_iou),
        boundary_f=None,
        iou=row.iou,
        parts={},
        confusions=[],
        seconds_per_photo=row.seconds / row.num_test,
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        machine=machine(torch.get_num_threads(), segmenter.device.type),
    )


def _spelled(config: KnnConfig | LinearConfig) -> dict[str, Any]:
    """Settings and constants of a probe by name; rows stay apart should a constant change."""
    if isinstance(config, KnnConfig):
        fixed: dict[str, Any] = {
            "iterations": constants.KMEANS_ITERATIONS,
            "location": constants.LOCATION_WEIGHT,
            "enlarge": CELLS_PER_PATCH,
        }
    else:
        fixed = {
            "weight_decay": constants.WEIGHT_DECAY,
            "momentum": constants.MOMENTUM,
            "decay": constants.RATE_DECAY,
            "decay_after": constants.DECAY_AFTER,
            "pixels_per_patch": constants.PIXELS_PER_PATCH,
        }
    return asdict(config) | fixed

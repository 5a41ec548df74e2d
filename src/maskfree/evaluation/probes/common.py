"""What the probes of frozen embeddings share: which photos teach and which are labeled, counts, rows of results.

A probe uses masks: it tells what embeddings hold, not what the model can do without masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from maskfree.data.benchmarks.catalog import (
    BENCHMARKS,
    IGNORE,
    Benchmark,
    LabeledPhoto,
    files_sha256,
)
from maskfree.data.photo import read_photo
from maskfree.evaluation.probes.config import KnnConfig, LinearConfig
from maskfree.evaluation.reporting.results import Row, machine, number, versions
from maskfree.inference.segmenter import Segmenter
from maskfree.metrics import SegmentationScores, confusion, scores
from maskfree.progress import Watch
from maskfree.types import BACKGROUND

TRAINING = {"camvid": "camvid-train", "voc20": "voc-train", "voc21": "voc-train"}
"""Benchmarks whose training photos are a benchmark of their own."""
HALVES = "halves"


@dataclass(frozen=True)
class Split:
    """Photos whose masks teach, and photos that are labeled."""

    train: tuple[LabeledPhoto, ...]
    test: tuple[LabeledPhoto, ...]


@dataclass(frozen=True, eq=False)
class ProbeRow:
    """What a probe counted; rows of other test photos with the same classes may be added."""

    classes: tuple[str, ...]
    confusion: Int64[np.ndarray, "k k"]
    """True class by predicted class, in pixels."""
    num_train: int
    """Photos that taught; of a sum, in all."""
    num_test: int
    """Photos that were labeled."""
    seconds: float
    """From the decoded test photos to their label maps."""

    @property
    def scores(self) -> SegmentationScores:
        """SegmentationScores in [0, 1]."""
        return scores(self.confusion)

    @property
    def iou(self) -> dict[str, float | None]:
        """IoU by class; None where it is neither true nor predicted anywhere."""
        return dict(zip(self.classes, map(number, self.scores.iou.tolist()), strict=True))

    def __add__(self, other: ProbeRow) -> ProbeRow:
        assert self.classes == other.classes, "rows of other classes cannot be added"
        return ProbeRow(
            self.classes,
            self.confusion + other.confusion,
            self.num_train + other.num_train,
            self.num_test + other.num_test,
            self.seconds + other.seconds,
        )


def classes_of(benchmark: Benchmark) -> tuple[str, ...]:
    """Name the ids of BENCHMARK's truth maps: its classes, and the background if it is labeled."""
    names = tuple(line.split("/")[0] for line in benchmark.words())
    return (*names, BACKGROUND) if benchmark.background else names


def splits(benchmark: Benchmark, root: Path) -> tuple[list[Split], str]:
    """Say which photos of BENCHMARK under ROOT teach which, and in a word where those that teach are from.

    They are its training photos, where they are a benchmark; otherwise each half of the photos, every other one,
    teaches the other half.

    Raises:
        ValueError, OSError: a file is missing or does not fit the others, or there are fewer than two photos.
    """
    test = benchmark.samples(root)
    if (name := TRAINING.get(benchmark.name)) is not None:
        train = replace(BENCHMARKS[name], background=benchmark.background)
        return [Split(train.samples(root), test)], name
    if len(test) < 2:
        raise ValueError(
            f"{benchmark.name} has {len(test)} photo: one half teaches the other, so two are needed"
        )
    halves = test[::2], test[1::2]
    return [Split(*halves), Split(*halves[::-1])], HALVES


def opened(
    samples: Sequence[LabeledPhoto], watch: Watch
) -> Iterator[tuple[Image.Image, UInt8[np.ndarray, "h w"]]]:
    """Decode photos and truth maps, one after the other.

    Raises:
        ValueError, OSError: one cannot be read, or they differ in size.
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
    """Bring a map of cells (h w) to HEIGHT x WIDTH pixels: each has the value of the cell that its middle lies in."""
    rows, columns = (
        ((torch.arange(length, device=values.device) + 0.5) * cells / length)
        .long()
        .clamp_(max=cells - 1)
        for length, cells in zip((height, width), values.shape, strict=True)
    )
    return values[rows[:, None], columns]


def count(
    truth: UInt8[np.ndarray, "h w"], labels: Tensor, num_classes: int
) -> Int64[np.ndarray, "k k"]:
    """Count the pixels of a labeled photo by true and predicted class."""
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
    """Make a row of results, whose protocol spells out the probe and the photos that taught it."""
    test = tuple(
        sorted((sample for split in chosen for sample in split.test), key=lambda sample: sample.key)
    )
    train = files_sha256(tuple(sample for split in chosen for sample in split.train))
    found = row.scores
    inference = {
        name: getattr(segmenter.inference, name) for name in ("side_px", "max_long_px", "precision")
    }
    protocol: dict[str, Any] = {
        "names": "plain",
        "background": f"words:{BACKGROUND}" if benchmark.background else "none",
        "candidates": "all",
        "scored": "all",
        "refine": "none",
        **inference,
        "taught_by": taught_by,
        "taught_by_sha256": train,
        **asdict(config),
    }
    return Row(
        benchmark=benchmark.name,
        num_photos=row.num_test,
        files_sha256=files_sha256(test),
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

"""Which benchmarks lie under a folder, what is missing of the others, and whether truth maps hold what they should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from maskfree.data.benchmarks.catalog import BENCHMARKS, Benchmark
from maskfree.data.benchmarks.layouts import LabeledPhoto
from maskfree.data.decoding import picture_size
from maskfree.progress import Watch, unwatched

_NUM_IDS = 256


@dataclass(frozen=True)
class BenchmarkFolder:
    """What lies of a benchmark under a root, by the names of the files; none has been opened."""

    root: Path  # the folder of the benchmark, which may lie below the root that was asked about
    num_photos: int  # photos whose truth maps are there too; 0 where there is a problem
    expected: int | None  # photos as published
    problem: str = ""  # what is missing first; empty: the benchmark can be measured

    @property
    def state(self) -> str:
        """One line for the listing."""
        if self.problem:
            return self.problem
        if self.expected in (None, self.num_photos):
            return f"{self.num_photos} photos in {self.root}"
        return f"{self.num_photos} photos in {self.root}, published with {self.expected}"


@dataclass(frozen=True)
class BenchmarkListing:
    """A benchmark as `maskfree datasets` shows it."""

    name: str
    title: str
    num_classes: int | None  # None: as many as the user's list has
    layout: str
    source: str
    found: BenchmarkFolder | None  # None: no root was given

    @property
    def state(self) -> str:
        """What lies of it under the root, in one line; empty if no root was given."""
        return self.found.state if self.found else ""


def check(benchmark: Benchmark, root: Path) -> BenchmarkFolder:
    """See whether BENCHMARK lies under ROOT, and what is missing first if it does not."""
    place = benchmark.find(root)
    try:
        count = len(benchmark.at(place).layout.photos(place))
    except (ValueError, OSError) as error:
        return BenchmarkFolder(place, 0, benchmark.num_photos, str(error))
    return BenchmarkFolder(place, count, benchmark.num_photos)


def overview(root: Path | None = None) -> tuple[BenchmarkListing, ...]:
    """List all benchmarks, with what lies of each under ROOT if one is given.

    Raises:
        NotADirectoryError: ROOT is no folder.
    """
    if root is not None and not root.is_dir():
        raise NotADirectoryError(f"{root} is no folder")
    rows = []
    for name, benchmark in BENCHMARKS.items():
        found = None if root is None else check(benchmark, root)
        own_list = benchmark.lists_at is None
        layout = benchmark.layout.describe() + (" and classes.txt" if own_list else "")
        num_classes = None if own_list else len(benchmark.words())
        rows.append(
            BenchmarkListing(name, benchmark.title, num_classes, layout, benchmark.source, found)
        )
    return tuple(rows)


def verify(samples: Sequence[LabeledPhoto], watch: Watch = unwatched) -> Int64[np.ndarray, " v"]:
    """Decode all truth maps and return how many pixels each truth id has; WATCH wraps the samples to show progress.

    Raises:
        ValueError, OSError: a map cannot be decoded, holds an id beyond the classes, or is not of its photo's size.
    """
    pixels = np.zeros(_NUM_IDS, dtype=np.int64)
    for sample in watch(samples):
        truth = sample.read_truth()
        width, height = picture_size(sample.photo)
        if truth.shape != (height, width):
            raise ValueError(
                f"{sample.photo} is {width}x{height} but its truth map {truth.shape[1]}x{truth.shape[0]}"
            )
        pixels += np.bincount(truth.ravel(), minlength=_NUM_IDS)
    return pixels

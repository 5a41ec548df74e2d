"""Inventory of benchmarks: which are present, and which files are missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from maskfree.data.benchmarks.catalog import BENCHMARKS, Benchmark


@dataclass(frozen=True)
class BenchmarkFolder:
    """Files of a benchmark under a root; none of them has been opened."""

    root: Path
    """Folder of the benchmark, which may lie below the given root."""
    num_photos: int
    """Number of photos with ground-truth maps; 0 if there is a problem."""
    expected: int | None
    """Number of photos as published."""
    problem: str = ""
    """What is missing first; empty if the benchmark can be evaluated."""

    @property
    def state(self) -> str:
        """Summary in one line.

        Returns:
            The problem, or the number of photos and their folder.
        """
        if self.problem:
            return self.problem
        if self.expected in (None, self.num_photos):
            return f"{self.num_photos} photos in {self.root}"
        return f"{self.num_photos} photos in {self.root}, published with {self.expected}"


@dataclass(frozen=True)
class BenchmarkListing:
    """Entry of a benchmark in `maskfree datasets`."""

    name: str
    """Name of the benchmark."""
    title: str
    """Description in one line."""
    num_classes: int | None
    """Number of classes; None if the class list is the user's."""
    layout: str
    """Description of the required files."""
    source: str
    """Address of the data."""
    found: BenchmarkFolder | None
    """Files under the root; None if no root was given."""

    @property
    def state(self) -> str:
        """Summary of the files under the root in one line.

        Returns:
            The summary; empty if no root was given.
        """
        if self.found is None:
            return ""
        return self.found.state


def check(benchmark: Benchmark, root: Path) -> BenchmarkFolder:
    """Check whether the files of a benchmark lie under a root.

    Args:
        benchmark: Benchmark to look for.
        root: Folder of the benchmark, or of several data sets.

    Returns:
        The number of photos, or what is missing first.
    """
    # Problems are reported, not raised: the listing shows all benchmarks.
    place = benchmark.find(root)
    try:
        count = len(benchmark.at(place).layout.photos(place))
    except (ValueError, OSError) as error:
        return BenchmarkFolder(place, 0, benchmark.num_photos, str(error))
    return BenchmarkFolder(place, count, benchmark.num_photos)


def overview(root: Path | None = None) -> tuple[BenchmarkListing, ...]:
    """List all benchmarks, with the files of each if a root is given.

    Args:
        root: Folder of a benchmark, or of several data sets.

    Returns:
        An entry per benchmark.

    Raises:
        NotADirectoryError: The root is not a folder.
    """
    if root is not None and not root.is_dir():
        raise NotADirectoryError(f"{root} is no folder")

    rows = []
    for name, benchmark in BENCHMARKS.items():
        found = None
        if root is not None:
            found = check(benchmark, root)

        layout, num_classes = benchmark.layout.describe(), None
        # The benchmark "folder" takes its class list from the user.
        if benchmark.lists_at is None:
            layout += " and classes.txt"
        else:
            num_classes = len(benchmark.words())

        rows.append(
            BenchmarkListing(name, benchmark.title, num_classes, layout, benchmark.source, found)
        )
    return tuple(rows)

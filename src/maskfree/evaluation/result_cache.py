"""Counts of photos, and their cache on disk, by which a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from maskfree.files.leftovers import writing


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
    reliability: Float64[np.ndarray, "15 3"] | None = None
    """Pixels by confidence, see `metrics.reliability_counts`; None if not measured."""


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
            line: dict[str, Any] = {
                "key": key,
                "shape": counts.confusion.shape,
                "where": where.tolist(),
                "counts": counts.confusion.ravel()[where].tolist(),
                "boundaries": None,
                "seconds": counts.seconds,
                "reliability": None,
            }
            if counts.boundaries is not None:
                line["boundaries"] = counts.boundaries.tolist()
            if counts.reliability is not None:
                line["reliability"] = counts.reliability.tolist()

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


def _read_lines(path: Path) -> Iterator[tuple[str, Counts]]:
    """Read keys and counts from a cache file, without its broken lines."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)

            # Restore the dense matrix from its nonzero entries.
            matrix = np.zeros(entry["shape"], np.int64)
            matrix.ravel()[entry["where"]] = entry["counts"]
            edges = entry["boundaries"]
            if edges is not None:
                edges = np.array(edges, np.int64)
            reliability = entry["reliability"]
            if reliability is not None:
                reliability = np.array(reliability, np.float64)

            yield entry["key"], Counts(matrix, edges, entry["seconds"], reliability)
        except (ValueError, KeyError, TypeError, IndexError):
            # An empty or truncated line: its photo is counted again.
            continue

"""Compute the region maps of many photos in several processes, with resumption.

Each map is written atomically, and maps that exist are kept.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from maskfree import run_dir
from maskfree.data.cache.region_maps import SegmentMaps, encode_map
from maskfree.data.examples import Example, decode
from maskfree.data.photo_sources import check_apart, file_stem, read_sources
from maskfree.data.process_map import process_map
from maskfree.files.atomic import replace_bytes, replace_text
from maskfree.progress import Watch

SUMMARY = "segments.json"
MapOf: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Computes the 8-bit region map of an RGB photo."""
_FORMAT = 1


@dataclass(frozen=True)
class SegmentPreparation:
    """A job that computes the region maps of some photos."""

    sources: tuple[str, ...]
    """Folders of photos, or shards."""
    out: Path
    """Folder of the maps."""
    settings: Mapping[str, Any]
    """Settings that the maps depend on, as plain values."""
    workers: int = 2
    """Number of processes."""

    def run(self, map_of: MapOf, watch: Watch) -> dict[str, Any]:
        """Compute the missing maps.

        Args:
            map_of: Computes the region map of a photo.
            watch: Wraps the iteration to show progress.

        Returns:
            The summary, which is also written to `segments.json` in the output folder. Its counts
            are photos, made, kept (existing maps) and broken (unreadable photos); photos_per_second
            is None if no map was made.

        Raises:
            FileNotFoundError: A source does not exist or holds no photo.
            ValueError: Two photos share a stem, the folder was begun with other settings, or there
                is no readable photo.
            NotADirectoryError: The output is a file.
        """
        if self.out.exists() and not self.out.is_dir():
            raise NotADirectoryError(f"the output {self.out} is a file: --out is a folder")
        examples = read_sources(self.sources)
        check_apart(self.out, self.sources)
        with run_dir.held(self.out):
            return self._run(examples, map_of, watch)

    def _run(self, examples: Iterable[Example], map_of: MapOf, watch: Watch) -> dict[str, Any]:
        """Compute the missing maps in a folder that this process holds."""
        # Recorded before the first map, so that no later run uses other settings.
        record = {"format": _FORMAT, "settings": dict(self.settings)}
        run_dir.check_record(self.out / SUMMARY, record, made="*.png")

        counts: Counter[str] = Counter(photos=0, made=0, kept=0, broken=0)
        regions: Counter[int] = Counter()
        start = time.perf_counter()

        with process_map(self.workers) as run:
            work = partial(_make, map_of=map_of, maps=SegmentMaps(self.out))
            for outcome, number in watch(run(work, self._photos(examples, counts)), "segments"):
                counts[outcome] += 1
                regions[number] += outcome == "made"

        seconds = time.perf_counter() - start
        if not counts["photos"]:
            raise ValueError(f"no photos in {', '.join(self.sources)}")

        if counts["broken"] == counts["photos"]:
            raise ValueError(
                f"none of the {counts['photos']} photos in {', '.join(self.sources)} can be read"
            )

        return self._finish(counts, regions, seconds)

    def _photos(self, examples: Iterable[Example], counts: Counter[str]) -> Iterator[Example]:
        """Count the photos and check that their stems are unique."""
        stems: dict[str, str] = {}
        for example in examples:
            counts["photos"] += 1
            name = f"{example.key!r} of {example.source}"
            stem = file_stem(example.key)

            # File systems may ignore case.
            if example.key and (other := stems.setdefault(stem.casefold(), name)) is not name:
                raise ValueError(
                    f"the photos {other} and {name} have one name, {stem}: "
                    "maps are told apart by it"
                )

            yield example

    def _finish(
        self, counts: Counter[str], regions: Counter[int], seconds: float
    ) -> dict[str, Any]:
        """Write and return the summary."""
        made = counts["made"]
        photos_per_second = mean_regions = None
        if made:
            num_regions = sum(number * times for number, times in regions.items())
            photos_per_second = round(made / seconds, 2)
            mean_regions = round(num_regions / made, 1)

        summary = {
            "format": _FORMAT,
            "settings": dict(self.settings),
            "counts": dict(counts),
            "photos_per_second": photos_per_second,
            "workers": self.workers,
            "mean_regions": mean_regions,
        }

        replace_text(self.out / SUMMARY, _text(summary))
        return summary


def _make(example: Example, map_of: MapOf, maps: SegmentMaps) -> tuple[str, int]:
    """Write the map of a photo unless it exists; return the outcome and the number of regions."""
    path = maps.path(example.key)
    # Examples of broken shards have no key.
    if example.key and path.exists():
        return "kept", 0

    try:
        photo = np.asarray(decode(example, 0))
    # Decoders raise many kinds of errors on damaged files.
    except Exception:
        return "broken", 0

    regions = map_of(photo)
    replace_bytes(path, encode_map(regions))
    return "made", int(regions.max()) + 1


def _text(content: Mapping[str, Any]) -> str:
    """Format as JSON."""
    return json.dumps(content, indent=1) + "\n"

"""Making the region maps of many photos in several processes; a run that was stopped goes on where it was.

Each map is written whole or not at all, and one that is there is kept.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from maskfree import run_dir
from maskfree.data.cache.region_maps import SegmentMaps, encode_map
from maskfree.data.examples import Example, decode
from maskfree.data.photo_sources import check_apart, file_stem, read_sources
from maskfree.files.atomic import read_json, replace_bytes, replace_text
from maskfree.progress import Watch
from maskfree.signals import worker_pool

SUMMARY = "segments.json"
MapOf: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Makes the region map, 8 bits, of an RGB photo."""
_WAITING = 8  # photos read ahead for each process
_FORMAT = 1


@dataclass(frozen=True)
class SegmentPreparation:
    """The work on the region maps of some photos."""

    sources: tuple[str, ...]
    """Folders of photos, or shards."""
    out: Path
    settings: Mapping[str, Any]
    """What the maps depend on, in plain values."""
    workers: int = 2

    def run(self, map_of: MapOf, watch: Watch) -> dict[str, Any]:
        """Make the maps that are missing; return the summary, which also goes into OUT/segments.json.

        Its counts: photos, made, kept (they were there) and broken (photos that cannot be read); and photos_per_second
        of those made, None if none were.

        Raises:
            FileNotFoundError: a source does not exist or holds no photo.
            ValueError: two photos have one stem, OUT was begun with other settings, or there is no photo at all.
            NotADirectoryError: OUT is a file.
        """
        if self.out.exists() and not self.out.is_dir():
            raise NotADirectoryError(f"the output {self.out} is a file: --out is a folder")
        examples = read_sources(self.sources)
        check_apart(self.out, self.sources)
        with run_dir.held(self.out):
            return self._run(examples, map_of, watch)

    def _run(self, examples: Iterable[Example], map_of: MapOf, watch: Watch) -> dict[str, Any]:
        """Do what `run` does, in a folder that this process holds."""
        self._check_settings()
        counts: Counter[str] = Counter(photos=0, made=0, kept=0, broken=0)
        regions: Counter[int] = Counter()
        start = time.perf_counter()
        with _processes(self.workers) as run:
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

    def _check_settings(self) -> None:
        """Record the settings before the first map, so that no later run mixes others with them."""
        record = self.out / SUMMARY
        if record.exists():
            try:
                before = read_json(record)["settings"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{record} is damaged: remove {self.out} to start anew") from error
            now = json.loads(json.dumps(dict(self.settings)))
            if changed := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
                raise ValueError(
                    f"{self.out} holds maps made with another {', '.join(changed)}: give another --out"
                )
            return
        if stray := next(self.out.glob("*.png"), None):
            raise FileExistsError(
                f"{stray} is no map of an earlier run, and would be taken for one: give another --out"
            )
        replace_text(record, _text({"format": _FORMAT, "settings": dict(self.settings)}))

    def _photos(self, examples: Iterable[Example], counts: Counter[str]) -> Iterator[Example]:
        stems: dict[str, str] = {}
        for example in examples:
            counts["photos"] += 1
            name = f"{example.key!r} of {example.source}"
            stem = file_stem(example.key)
            if example.key and (other := stems.setdefault(stem.casefold(), name)) is not name:
                raise ValueError(
                    f"the photos {other} and {name} have one name, {stem}: maps are told apart by it"
                )
            yield example

    def _finish(
        self, counts: Counter[str], regions: Counter[int], seconds: float
    ) -> dict[str, Any]:
        made = counts["made"]
        summary = {
            "format": _FORMAT,
            "settings": dict(self.settings),
            "counts": dict(counts),
            "photos_per_second": round(made / seconds, 2) if made else None,
            "workers": self.workers,
            "mean_regions": round(
                sum(number * times for number, times in regions.items()) / made, 1
            )
            if made
            else None,
        }
        replace_text(self.out / SUMMARY, _text(summary))
        return summary


def _make(example: Example, map_of: MapOf, maps: SegmentMaps) -> tuple[str, int]:
    """Write the map of a photo, unless it is there; return what came of it, and its number of regions."""
    path = maps.path(example.key)
    if example.key and path.exists():
        return "kept", 0
    try:
        photo = np.asarray(decode(example, 0))
    except Exception:  # decoders of damaged files raise nearly anything
        return "broken", 0
    regions = map_of(photo)
    replace_bytes(path, encode_map(regions))
    return "made", int(regions.max()) + 1


@contextmanager
def _processes(number: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` over NUMBER processes that reads but a little ahead, or in this one for one."""
    if number <= 1:
        yield map
        return
    with worker_pool(number) as pool:
        yield partial(_map_ahead, pool, number * _WAITING)


def _map_ahead(
    pool: Any, most: int, work: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """Results in order; at most MOST items wait, where Pool.imap would read all of them at once."""
    waiting: list[Any] = []
    for item in items:
        waiting.append(pool.apply_async(work, (item,)))
        if len(waiting) >= most:
            yield waiting.pop(0).get()
    for result in waiting:
        yield result.get()


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"

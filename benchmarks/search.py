"""Search: precision at 6 for the classes of coco-mini, and a second query on many photos."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

import maskfree
from harness import RESULTS, Ratio, report
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.data.shards import read_shards
from maskfree.files.user_cache import VARIABLE
from maskfree.inference.search import Hit, Retrieved, retrieve_all
from maskfree.inference.search_config import RetrievalConfig
from maskfree.inference.search_words import parse_words

TOP = 6
# Shorter side of the photos that are searched twice: fewer pixels make the first search quicker,
# but the second one no other.
TWICE_SIDE_PX = 112
# Share of a segment that the class covers from which the segment counts as of the class: the
# segments are coarse, and most things are small.
COVERED = 0.1


def main(
    data: Path = Path("../shared/data/coco-mini"),
    shard: Path = Path("../shared/data/flickr8k/test-000.tar"),
    model: str = "pocket",
    photos: int = 1000,
    results: Path = RESULTS,
) -> None:
    """Search the photos of coco-mini for each class, and those of a shard twice.

    Args:
        data: Folder of coco-mini.
        shard: Shard whose photos are searched twice.
        model: Name of a model or folder of a checkpoint.
        photos: Photos of the shard.
        results: Folder for the results file.
    """
    torch.set_num_threads(1)
    segmenter = maskfree.load(model)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = str(Path(folder) / "cache")
        rows = [
            precision(segmenter, data, RetrievalConfig(top=TOP, background=background))
            for background in ("auto", "none")
        ]
        seconds = two_queries(segmenter, unpacked(shard, photos, Path(folder)))

    ratios = [
        Ratio("precision at 6, photos", rows[0]["photos"], "at least 0.6", ""),
        Ratio("precision at 6, photos, cosines alone", rows[1]["photos"], "", ""),
        Ratio("precision at 6, segments", rows[0]["segments"], "", ""),
        Ratio("precision at 6, segments, cosines alone", rows[1]["segments"], "", ""),
        Ratio(f"second query, {photos} photos", seconds["second query"], "at most 1", "s"),
    ]
    settings = {
        "model": model,
        "photos": photos,
        "side_px_of_first_query": TWICE_SIDE_PX,
        "clock": "CPU seconds",
        "precision": f"of the {TOP} best photos, or of all photos of a class if there are fewer, "
        f"the share that shows the class, and whose segment is covered by it to {COVERED:.0%}",
        "equal": "hits of the index and of a search without it",
    }
    report("search", seconds, ratios, settings, results, rows)


def precision(segmenter: maskfree.Segmenter, data: Path, config: RetrievalConfig) -> dict[str, Any]:
    """Search for every class, and count the hits on photos and segments of the class."""
    coco = benchmark("coco-mini")
    samples = list(coco.samples(data))
    truths = {Path(sample.photo): sample.read_truth() for sample in samples}
    words = parse_words(coco.words())
    found = retrieve_all(segmenter, words, list(truths), config)

    of_photos, of_segments = {}, {}
    for index, (synonyms, retrieved) in enumerate(zip(words, found, strict=True)):
        shown = sum(bool((truth == index).any()) for truth in truths.values())
        hits = retrieved.hits[: min(TOP, shown)]
        of_photos[synonyms[0]] = share([bool((truths[h.photo] == index).any()) for h in hits])
        covered = [covered_by(hit, truths[hit.photo] == index) >= COVERED for hit in hits]
        of_segments[synonyms[0]] = share(covered)

    return {
        "background": config.background,
        "photos": share(list(of_photos.values())),
        "segments": share(list(of_segments.values())),
        "photos_by_class": of_photos,
        "segments_by_class": of_segments,
    }


def share(values: Sequence[float]) -> float:
    """Mean of some values."""
    return sum(values) / len(values)


def covered_by(hit: Hit, truth: np.ndarray) -> float:
    """Share of a hit's segment that a class covers."""
    size = hit.mask.shape[1], hit.mask.shape[0]
    small = Image.fromarray(truth).resize(size, Image.Resampling.NEAREST)
    return float(np.asarray(small)[hit.mask].mean())


def unpacked(shard: Path, count: int, folder: Path) -> list[Path]:
    """Write the photos of a shard to files."""
    paths = []
    for example, number in zip(read_shards([str(shard)]), range(count), strict=False):
        assert isinstance(example.photo, bytes)
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(example.photo)
    assert len(paths) == count, f"{shard} holds only {len(paths)} photos"
    return paths


def two_queries(segmenter: maskfree.Segmenter, photos: list[Path]) -> dict[str, float]:
    """CPU seconds of two queries with an index, of which the second runs no network."""
    config = RetrievalConfig()
    inference = replace(segmenter.inference, side_px=TWICE_SIDE_PX)
    segmenter = segmenter.with_inference(inference)
    seconds: dict[str, float] = {}
    for name, word in (("first query", "dog"), ("second query", "sofa/couch")):
        start = time.process_time()
        found = retrieve_all(segmenter, parse_words(word), photos, config)
        seconds[name] = time.process_time() - start

    # A tenth of the photos shows that the index changes nothing.
    few = photos[::10]
    plain = retrieve_all(segmenter, parse_words(word), few, replace(config, index=False))
    again = retrieve_all(segmenter, parse_words(word), few, config)
    assert records(plain) == records(again) and records(found)
    return seconds


def records(found: Sequence[Retrieved]) -> list[dict[str, Any]]:
    """Hits of the first word as plain values."""
    return [hit.record() for hit in found[0].hits]


if __name__ == "__main__":
    tyro.cli(main)

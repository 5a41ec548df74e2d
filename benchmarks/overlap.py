"""Segmenting and saving many photos, with reading, network and saving at once, against the network
alone and against one step after the other.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import tyro
from PIL import Image

import maskfree
from harness import RESULTS, Ratio, report
from maskfree.cli.common import keep_freed_memory
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.inference.photos import (
    HeldPixels,
    PhotoError,
    PreparedPhoto,
    open_photo,
    prepare_photo,
    read_chunks,
)
from maskfree.inference.pipeline import score_photos, segment_photos
from maskfree.results.segmentation import Segmentation

Results = Iterator[Segmentation | PhotoError]


def main(
    photos: Path = Path("../shared/data/coco-mini/images"),
    model: str = "pocket",
    count: int = 60,
    repeats: int = 3,
    threads: int = 1,
    results: Path = RESULTS,
) -> None:
    """Label photos with 21 words and save the results.

    Args:
        photos: Folder of photos.
        model: Name of a model or folder of a checkpoint.
        count: Number of photos.
        repeats: Rounds of which the median counts.
        threads: Threads of torch.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    # As the command does.
    keep_freed_memory()
    chosen = sorted(photos.glob("*.jpg"))[:count]
    assert len(chosen) == count, f"{photos} holds only {len(chosen)} photos"
    words = [*benchmark("coco-mini").words(), "sky"]
    segmenter = maskfree.load(model).with_words(words)
    networks = networks_of(segmenter, chosen)

    def at_once() -> Results:
        """Results with threads ahead."""
        return segmenter.segment_many(chosen)

    def in_turn() -> Results:
        """Results one step after the other."""
        return segment_photos(segmenter, map(open_photo, chosen))

    with tempfile.TemporaryDirectory() as folder:
        assert saved(at_once(), Path(folder)) == saved(in_turn(), Path(folder)), "other labels"
        candidates = {
            "photos at once": lambda: saved(at_once(), Path(folder)),
            "their networks": networks,
            "one step after the other": lambda: saved(in_turn(), Path(folder)),
        }
        # The check above was the warm-up.
        seconds, processor = both_clocks(candidates, repeats)

    whole, network = seconds["photos at once"], seconds["their networks"]
    work = processor["photos at once"] / processor["their networks"]
    ratios = [
        Ratio(f"{count} photos over their networks, CPU seconds of all threads", work),
        Ratio(f"{count} photos over their networks", whole / network, "at most 1.15"),
        Ratio(
            "one step after the other over networks", seconds["one step after the other"] / network
        ),
    ]
    settings = {
        "model": model,
        "photos": count,
        "words": len(words),
        "repeats": repeats,
        "equal": "all labels",
        # Others' processes take the core that the threads need.
        "load_average": round(os.getloadavg()[0], 1),
    }
    cpu_seconds = {f"{name}, CPU": taken for name, taken in processor.items()}
    report("overlap", seconds | cpu_seconds, ratios, settings, results)


def both_clocks(
    candidates: dict[str, Callable[[], object]], repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and CPU seconds of each candidate; they take turns."""
    wall = {name: [] for name in candidates}
    processor = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - start_cpu)
    return (
        {name: statistics.median(taken) for name, taken in wall.items()},
        {name: statistics.median(taken) for name, taken in processor.items()},
    )


def networks_of(segmenter: maskfree.Segmenter, photos: list[Path]) -> Callable[[], object]:
    """Return the run of the network on photos that were read before, in the same chunks."""

    def prepare(photo: Image.Image, name: str) -> PreparedPhoto:
        """Resize and pad a photo for the network."""
        return prepare_photo(photo, name, segmenter.inference, segmenter.method.patch_size)

    opened = map(open_photo, photos)
    held = HeldPixels()
    held.close()  # all are held here
    chunks = list(read_chunks(opened, prepare, segmenter.inference.batch_size, held))
    together = [[item for item in chunk if not isinstance(item, PhotoError)] for chunk in chunks]
    return lambda: [score_photos(segmenter, chunk) for chunk in together]


def saved(results: Results, folder: Path) -> str:
    """Save results and return a hash of their labels."""
    labels = hashlib.sha256()
    for place, result in enumerate(results):
        assert isinstance(result, Segmentation)
        result.save(folder, str(place))
        labels.update(result.labels.tobytes())
    return labels.hexdigest()


if __name__ == "__main__":
    tyro.cli(main)

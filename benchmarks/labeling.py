"""Photos a second and memory of `maskfree label`: on real photos, and on very many small ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

from harness import RESULTS, Ratio, report, resident_bytes
from maskfree.hub import loading
from maskfree.inference.segmenter import Segmenter
from maskfree.label.classes import label_classes
from maskfree.label.config import LabelConfig
from maskfree.label.job import Job
from maskfree.label.processes import Processes
from maskfree.label.record import asked_record
from maskfree.label.run import label_photos
from maskfree.label.store import Store
from maskfree.label.words_file import read_words
from maskfree.text.background import Background

WORDS = ("person", "dog", "cat", "bicycle", "car", "sky", "tree", "grass", "water", "wall")
# Photos of the flood are small, as its subject is what stays in memory from photo to photo.
_SMALL = (64, 48)
_SMALL_SIDE_PX = 32


def main(
    coco: Path = Path("../shared/data/coco-mini/images"),
    flickr: Path = Path("../shared/data/flickr8k/test-000.tar"),
    real: int = 500,
    counts: tuple[int, ...] = (1000, 5000, 20_000),
    results: Path = RESULTS,
) -> None:
    """Label real photos, then very many small ones, each in a process of its own.

    Args:
        coco: Folder of photos.
        flickr: Shard of photos, of which as many are taken as are missing in the folder.
        real: Real photos in all.
        counts: Numbers of small photos after which memory is read.
        results: Folder for the results file.
    """
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        photos = [str(coco), str(_unpacked(flickr, folder / "flickr", real - _number(coco)))]
        rows = [
            _child("segmented", photos, folder / "none"),
            _child("labeled", photos, folder / "real"),
            _child("labeled again", photos, folder / "real"),
        ]
        _make_small(folder / "small", max(counts))
        small = [str(folder / "small")]
        rows.append(_child("small", small, folder / "flood", _SMALL_SIDE_PX, counts))
        rows.append(_child("small again", small, folder / "flood", _SMALL_SIDE_PX))

    seconds = {row["name"]: row["seconds"] for row in rows}
    # Of the processor, as other programs may use the machine.
    work = {row["name"]: row["processor_seconds"] for row in rows}
    flood = rows[3]["megabytes"]
    ratios = [
        Ratio(
            "CPU seconds of labeling over those of segmenting alone",
            work["labeled"] / work["segmented"],
            "at most 1.2",
        ),
        Ratio(
            f"memory after {counts[-1]:,} photos over that after {counts[0]:,}",
            flood[str(counts[-1])] / flood[str(counts[0])],
            "at most 1.1",
        ),
    ]
    settings = {"real": real, "words": WORDS, "small": _SMALL, "small_side_px": _SMALL_SIDE_PX}
    report("labeling", seconds, ratios, settings, results, rows)


def _number(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def _unpacked(shard: Path, folder: Path, number: int) -> Path:
    """The first photos of a shard, as files."""
    folder.mkdir()
    with tarfile.open(shard) as archive:
        photos = (info for info in archive if info.name.endswith(".jpg"))
        for info, _ in zip(photos, range(number), strict=False):
            content = archive.extractfile(info)
            assert content is not None
            (folder / Path(info.name).name).write_bytes(content.read())
    return folder


def _make_small(folder: Path, number: int) -> None:
    """Photos of blocks of random colors, a thousand in a folder."""
    numbers = np.random.default_rng(0)
    for index in range(number):
        path = folder / str(index // 1000) / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        colors = numbers.integers(0, 256, (3, 4, 3), np.uint8)
        Image.fromarray(colors).resize(_SMALL).save(path)


def _child(
    name: str,
    photos: list[str],
    out: Path,
    side_px: int | None = None,
    counts: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Run one measurement in a process of its own, whose memory is not that of others."""
    given = {"name": name, "photos": photos, "out": str(out), "side_px": side_px, "counts": counts}
    ended = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(given)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(ended.stdout.splitlines()[-1])


def _measure(
    name: str, photos: list[str], out: str, side_px: int | None, counts: list[int]
) -> dict[str, Any]:
    """Label the photos, or only segment them; return figures."""
    segmenter = _segmenter(side_px)
    megabytes: dict[str, int] = {}

    def watch(items: Iterable[Any], name: str = "", total: int | None = None) -> Iterator[Any]:
        """Read the memory after some numbers of photos."""
        for done, item in enumerate(items, 1):
            yield item
            if done in counts:
                megabytes[str(done)] = resident_bytes("VmHWM") // 2**20

    wall, processor = time.perf_counter(), time.process_time()
    if name == "segmented":
        files = sorted(path for folder in photos for path in Path(folder).iterdir())
        number = sum(1 for _ in segmenter.segment_many(files))
    else:
        counted = label_photos(_job(photos, Path(out)), lambda: segmenter, Processes(), watch)
        number = counted.labeled + counted.kept
    seconds = time.perf_counter() - wall

    return {
        "name": name,
        "photos": number,
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor,
        "photos_per_second": number / seconds,
        "megabytes": megabytes | {"peak": resident_bytes("VmHWM") // 2**20},
    }


def _segmenter(side_px: int | None) -> Segmenter:
    loaded = loading.load("pocket", "cpu")
    return loaded.with_inference(loaded.inference.changed(side_px=side_px)).with_words(WORDS)


def _job(photos: list[str], out: Path) -> Job:
    out.mkdir(exist_ok=True)
    words, config = read_words(WORDS), LabelConfig()
    classes = label_classes(words, False, 0)
    asked = asked_record(words, classes, Background(), config, {})
    return Job(tuple(photos), Store(out, classes), config, asked)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_measure(**json.loads(sys.argv[2]))))
    else:
        tyro.cli(main)

"""How the cost of labeling grows with words, pixels and photos, as a table and a chart."""

from __future__ import annotations

import ctypes
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image

import maskfree
from harness import RESULTS, Ratio, report, resident_bytes
from maskfree.data.photo import read_photo
from maskfree.evaluation.reporting.chart_style import COLORS, MARKERS, make_figure, save, style
from maskfree.files.user_cache import VARIABLE
from maskfree.results.segmentation import Segmentation
from maskfree.text.tags import IMAGENET_TAGS, read_tags

WORDS = (1, 10, 100, 1000)
MEGAPIXELS = (0.1, 0.4, 1.6, 4.0, 12.0, 40.0)
PHOTOS = (1, 10, 100, 1000)
FEW_WORDS = 10
# Shorter side that the network sees of the many photos: it grows with their number anyway.
MANY_SIDE_PX = 64
# Parameter of glibc's mallopt.
M_MMAP_THRESHOLD = -3

Row = dict[str, Any]


def main(
    model: str = "pocket",
    photo: Path = Path("examples/pagoda.jpg"),
    repeats: int = 3,
    results: Path = RESULTS,
) -> None:
    """Measure CPU seconds and peak memory.

    Args:
        model: Name of a model or folder of a checkpoint.
        photo: Photo that is enlarged or made smaller.
        repeats: Runs of which the median counts.
        results: Folder for the results file and growth.svg.
    """
    torch.set_num_threads(1)
    return_freed_memory()
    os.environ[VARIABLE] = "off"
    segmenter = maskfree.load(model)
    picture = Image.open(photo).convert("RGB")

    with tempfile.TemporaryDirectory() as folder:
        rows = [
            *by_words(segmenter, picture, repeats),
            *by_pixels(segmenter, picture, repeats, Path(folder)),
            *by_photos(segmenter, picture, Path(folder)),
        ]

    seconds = {f"{row['step']}, {row['size']:g} {row['of']}": row["seconds"] for row in rows}
    settings = {
        "model": model,
        "photo": photo.name,
        "clock": "CPU seconds",
        "repeats": repeats,
        "words_of_pixels_and_photos": FEW_WORDS,
        "side_px_of_photos": MANY_SIDE_PX,
    }
    draw(rows, results / "growth.svg")
    report("growth", seconds, growth(rows), settings, results, rows)


def return_freed_memory() -> None:
    """Let glibc return each large block that is freed, so that peaks are those of a step."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)


def by_words(segmenter: maskfree.Segmenter, picture: Image.Image, repeats: int) -> list[Row]:
    """Embedding words, and labeling a photo of 640x480 with them."""
    rows: list[Row] = []
    small = picture.resize((640, 480))
    for count in WORDS:
        words = known_words(count)
        chosen = segmenter.with_words(words, "none", "plain")
        steps = {
            "embed words": lambda words=words: segmenter.with_words(words, "none", "plain"),
            "label a photo": lambda chosen=chosen: chosen(small),
        }
        rows += [measured(step, "words", count, run, repeats) for step, run in steps.items()]
    return rows


def by_pixels(
    segmenter: maskfree.Segmenter, picture: Image.Image, repeats: int, folder: Path
) -> list[Row]:
    """Reading, labeling and saving a photo."""
    rows: list[Row] = []
    chosen = segmenter.with_words(known_words(FEW_WORDS), "none", "plain")
    for megapixels in MEGAPIXELS:
        width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
        path = folder / "photo.jpg"
        picture.resize((width, round(width * 3 / 4))).save(path, quality=90)
        opened = read_photo(path)
        result = chosen(opened)

        steps: dict[str, Callable[[], object]] = {
            "read": lambda path=path: read_photo(path),
            "label": lambda opened=opened: chosen(opened),
            "areas": result.areas,
            "overlay of all pixels": result.overlay,
            "save": lambda result=result: result.save(folder, "result"),
        }
        rows += [measured(step, "MP", megapixels, run, repeats) for step, run in steps.items()]
    return rows


def by_photos(segmenter: maskfree.Segmenter, picture: Image.Image, folder: Path) -> list[Row]:
    """Labeling and saving many photos."""
    inference = segmenter.inference.changed(side_px=MANY_SIDE_PX)
    chosen = segmenter.with_inference(inference)
    chosen = chosen.with_words(known_words(FEW_WORDS), "none", "plain")
    path = folder / "small.jpg"
    picture.resize((160, 120)).save(path, quality=90)

    def label(count: int) -> None:
        """Label and save a photo again and again."""
        for place, result in enumerate(chosen.segment_many([path] * count)):
            assert isinstance(result, Segmentation)
            result.save(folder, str(place))

    label(1)
    return [
        measured("label and save", "photos", count, lambda count=count: label(count), 1)
        for count in PHOTOS
    ]


def measured(step: str, of: str, size: float, run: Callable[[], object], repeats: int) -> Row:
    """Median of CPU seconds, and peak memory of the process."""
    # Linux resets the peak.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    taken = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)

    return {
        "of": of,
        "step": step,
        "size": size,
        "seconds": statistics.median(taken),
        "peak_gigabytes": round(resident_bytes("VmHWM") / 1e9, 3),
    }


def known_words(count: int) -> list[str]:
    """Words of ImageNet's classes, each once."""
    names = dict.fromkeys(tag.names[0].casefold() for tag in read_tags(IMAGENET_TAGS))
    extra = (name for tag in read_tags(IMAGENET_TAGS) for name in tag.names[1:])
    words = list(dict.fromkeys([*names, *(name.casefold() for name in extra)]))
    assert len(words) >= count
    return words[:count]


def growth(rows: Sequence[Row]) -> list[Ratio]:
    """Cost per unit at the largest size over that at the size before."""
    ratios = []
    for of, step in dict.fromkeys((row["of"], row["step"]) for row in rows):
        first, second = [row for row in rows if (row["of"], row["step"]) == (of, step)][-2:]
        times = (second["seconds"] / second["size"]) / (first["seconds"] / first["size"])
        name = f"{step}: per unit, {second['size']:g} over {first['size']:g} {of}"
        ratios.append(Ratio(name, times, "at most 1.3"))
    return ratios


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Draw CPU seconds over words, pixels and photos, and memory over pixels."""
    panels = [
        ("words", "seconds", "words", "CPU seconds"),
        ("MP", "seconds", "megapixels", "CPU seconds"),
        ("photos", "seconds", "photos", "CPU seconds"),
        ("MP", "peak_gigabytes", "megapixels", "peak memory [GB]"),
        ("photos", "peak_gigabytes", "photos", "peak memory [GB]"),
    ]
    with style():
        figure, all_axes = make_figure((5.2, 11.5), [1.0] * len(panels))
        for axes, (of, value, x_label, y_label) in zip(all_axes, panels, strict=True):
            mine = [row for row in rows if row["of"] == of]
            for number, step in enumerate(dict.fromkeys(row["step"] for row in mine)):
                line = [row for row in mine if row["step"] == step]
                axes.plot(
                    [row["size"] for row in line],
                    [row[value] for row in line],
                    label=step,
                    color=COLORS[number % len(COLORS)],
                    marker=MARKERS[number % len(MARKERS)],
                )
            axes.set(xlabel=x_label, ylabel=y_label, xscale="log")
            if value == "seconds":
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
            axes.legend()
        return save(figure, path)


if __name__ == "__main__":
    tyro.cli(main)

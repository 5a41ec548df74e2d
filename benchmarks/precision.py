"""Number formats on this machine: seconds per photo, labels that change, and mIoU, to choose the
default by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image
from rich.progress import track

import maskfree
from harness import RESULTS, Ratio, command_line, cpu_has_amx, median_seconds, report
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.data.photo import PhotoLike
from maskfree.evaluation.protocol import Protocol, prepare
from maskfree.evaluation.zero_shot import EvalJob, measure
from maskfree.inference.segmenter import Segmenter


@dataclass(frozen=True)
class Format:
    """How the network computes: torch's fp32 matrix product mode, and the precision of
    `Inference`.
    """

    matmul: Literal["highest", "medium"] = "highest"
    precision: Literal["float32", "bfloat16"] = "float32"


FORMATS = {
    "fp32": Format(),
    "fp32, oneDNN products": Format(matmul="medium"),
    "bf16 autocast": Format(precision="bfloat16"),
}
NEEDS_NO_AMX = "fp32, oneDNN products"  # with AMX, oneDNN computes those products in bf16


def main(
    model: str = "pocket",
    data: Path | None = None,
    names: str = "synonyms",
    photo: Path = Path("examples/pagoda.jpg"),
    repeats: int = 9,
    threads: int = 1,
    results: Path = RESULTS,
) -> None:
    """Time a photo in each number format; measure labels and mIoU on coco-mini if DATA is given.

    Args:
        model: Name of a model or folder of a checkpoint.
        data: Folder of coco-mini.
        names: Name set of coco-mini.
        photo: Photo to time, resized to 640x480.
        repeats: Rounds of which the median counts.
        threads: Threads of torch.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    bench, protocol = benchmark("coco-mini"), Protocol(names=names)
    samples = bench.samples(data) if data else ()
    segmenter = prepare(maskfree.load(model), bench, protocol)
    formats = {k: v for k, v in FORMATS.items() if k != NEEDS_NO_AMX or not cpu_has_amx()}
    picture = Image.open(photo).convert("RGB").resize((640, 480))
    variants = {
        name: segmenter.with_inference(replace(segmenter.inference, precision=chosen.precision))
        for name, chosen in formats.items()
    }
    runs = {
        name: _in(formats[name], lambda variant=variant: variant(picture))
        for name, variant in variants.items()
    }
    seconds = median_seconds(runs, repeats, clock=time.process_time)
    photos = [sample.photo for sample in samples] or [picture]
    changed = labels_changed(variants, formats, photos)
    rows = []
    for name, variant in variants.items():
        row = {
            "format": name,
            "seconds": seconds[name],
            "photos": len(photos),
            "labels_changed": float(np.mean(changed[name])),
            "labels_changed_most": max(changed[name]),
        }
        if samples:
            with matmul(formats[name].matmul):
                scored = measure(
                    variant, protocol, EvalJob(bench, samples, command_line(), watch=track)
                ).row
            row |= {
                "coco_mini_miou": scored.mean_iou,
                "coco_mini_pixel_accuracy": scored.pixel_accuracy,
            }
        rows.append(row)
    ratios = [
        Ratio(f"fp32 over {name}", seconds["fp32"] / seconds[name])
        for name in formats
        if name != "fp32"
    ]
    left_out = (
        {}
        if NEEDS_NO_AMX in formats
        else {NEEDS_NO_AMX: "left out: this CPU has AMX, where it computes in bf16"}
    )
    settings = {
        "model": model,
        "amx": cpu_has_amx(),
        "names": names,
        "side_px": protocol.inference.side_px,
        "left_out": left_out,
    }
    report("precision", seconds, ratios, settings, results, rows)


def labels_changed(
    variants: dict[str, Segmenter], formats: dict[str, Format], photos: Sequence[PhotoLike]
) -> dict[str, list[float]]:
    """Fraction of the pixels of each photo whose label a format changes."""
    changed: dict[str, list[float]] = {name: [] for name in variants}
    for photo in photos:
        labels = {}
        for name, variant in variants.items():
            with matmul(formats[name].matmul):
                labels[name] = variant(photo).labels
        for name, found in labels.items():
            changed[name].append(float((found != labels["fp32"]).mean()))
    return changed


@contextmanager
def matmul(mode: str):
    """Compute fp32 matrix products in a mode of torch, then as before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(mode)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _in(
    chosen: Format, run: Callable[[], maskfree.Segmentation]
) -> Callable[[], maskfree.Segmentation]:
    def inside() -> maskfree.Segmentation:
        with matmul(chosen.matmul):
            return run()

    return inside


if __name__ == "__main__":
    tyro.cli(main)

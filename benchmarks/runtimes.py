"""Runtimes of the image side on benchmarks: time against torch as it is, equal labels, and mIoU.

CPU seconds of a whole photo, from decoded photo to label map, in turn on each photo.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import tyro

import maskfree
from harness import PLAIN, RESULTS, Ratio, load_plain, report
from maskfree.data.benchmarks.catalog import benchmark
from maskfree.data.photo import read_photo
from maskfree.evaluation.evaluator import truth_lookup
from maskfree.evaluation.named_protocols import own
from maskfree.evaluation.protocol import prepare
from maskfree.inference.runtimes.choice import RuntimeName
from maskfree.inference.segmenter import Segmenter
from maskfree.metrics.confusion_matrix import confusion
from maskfree.metrics.segmentation_scores import scores

FEWER_BITS: tuple[RuntimeName, ...] = ("openvino-bf16", "openvino-int8")
"""Runtimes that need not give torch's labels, but its mIoU."""
EXACT = "at least 99.99"


def main(
    data: Path = Path("../shared/data"),
    model: str = "pocket",
    benchmarks: tuple[str, ...] = ("coco-mini", "camvid"),
    runtimes: tuple[RuntimeName, ...] = ("onnx", "openvino", *FEWER_BITS),
    every: int = 1,
    threads: int = 1,
    results: Path = RESULTS,
) -> None:
    """Label the photos of benchmarks in each runtime.

    Args:
        data: Folder with the benchmarks.
        model: Name of a model or folder of a checkpoint.
        benchmarks: Names of the benchmarks.
        runtimes: Runtimes that are compared with torch.
        every: Take every so many photos.
        threads: Threads of torch and of the runtimes.
        results: Folder for the results file.
    """
    torch.set_num_threads(threads)
    loaded = maskfree.load(model, "cpu")
    candidates = {PLAIN: load_plain(model), "torch": loaded}
    candidates |= {name: loaded.with_runtime(name) for name in runtimes}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    rows = []
    for chosen in benchmarks:
        rows += compared(candidates, chosen, data, every, seconds)

    medians = {name: float(np.median(taken)) for name, taken in seconds.items()}
    ratios = []
    for name in ("torch", *runtimes):
        own_rows = [row for row in rows if row["runtime"] == name]
        equal = 100 * min(row["labels_equal"] for row in own_rows)
        fast = name in FEWER_BITS
        ratios += [
            Ratio(f"{PLAIN} over {name}", medians[PLAIN] / medians[name], "at least 1.4"),
            Ratio(f"pixels equal to its, {name}", equal, "" if fast else EXACT, "%"),
        ]
        if fast:
            lost = max(row["mean_iou_lost"] for row in own_rows)
            ratios.append(Ratio(f"mIoU lost, {name}", 100 * lost, "at most 0.5", "points"))

    settings = {
        "model": model,
        "benchmarks": benchmarks,
        "every": every,
        "clock": "CPU seconds",
    }
    report("runtimes", medians, ratios, settings, results, rows)


def compared(
    candidates: dict[str, Segmenter],
    name: str,
    data: Path,
    every: int,
    seconds: dict[str, list[float]],
) -> list[dict[str, object]]:
    """Rows of a benchmark, one for each runtime; times are appended to `seconds`."""
    found = benchmark(name, data)
    protocol = own(found)[0]
    lookup, num_classes = truth_lookup(found, protocol)
    segmenters = {each: prepare(loaded, found, protocol) for each, loaded in candidates.items()}
    counts: dict[str, np.ndarray] = {
        each: np.zeros((num_classes, num_classes), np.int64) for each in candidates
    }
    equal: dict[str, int] = dict.fromkeys(candidates, 0)
    pixels, num_photos = 0, 0

    for sample in found.samples(data)[::every]:
        photo, truth = read_photo(sample.photo), lookup[sample.read_truth()]
        labels: dict[str, np.ndarray] = {}
        for each, segmenter in segmenters.items():
            start = time.process_time()
            labels[each] = segmenter(photo).labels
            seconds[each].append(time.process_time() - start)
            counts[each] += confusion(truth, labels[each], num_classes)
            equal[each] += int((labels[each] == labels[PLAIN]).sum())
        pixels += labels[PLAIN].size
        num_photos += 1

    found_iou = {each: scores(counts[each]).mean_iou for each in candidates}
    return [
        {
            "benchmark": name,
            "runtime": each,
            "photos": num_photos,
            "labels_equal": equal[each] / pixels,
            "mean_iou": found_iou[each],
            "mean_iou_lost": found_iou[PLAIN] - found_iou[each],
        }
        for each in candidates
    ]


if __name__ == "__main__":
    tyro.cli(main)

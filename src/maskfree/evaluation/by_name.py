"""Evaluation by the names of a benchmark and a protocol, from Python."""

from __future__ import annotations

from pathlib import Path

from maskfree.data.benchmarks.catalog import benchmark as find_benchmark
from maskfree.evaluation.named_protocols import PROTOCOLS
from maskfree.evaluation.protocol import check
from maskfree.evaluation.reporting.results import Row
from maskfree.evaluation.zero_shot import EvalJob, measure
from maskfree.inference.segmenter import Segmenter
from maskfree.progress import Watch, unwatched


def evaluate(
    model: Segmenter,
    benchmark: str,
    root: str | Path,
    protocol: str = "own",
    max_photos: int | None = None,
    watch: Watch = unwatched,
) -> list[Row]:
    """Evaluate a model on a segmentation benchmark.

    Nothing is written; the command `maskfree evaluate` also writes files and resumes stopped runs.

    Args:
        model: Model to evaluate; its own words are not used.
        benchmark: Name of a benchmark; `maskfree datasets` lists them.
        root: Folder that contains the files of the benchmarks, or their folders.
        protocol: Evaluation protocol: own, tcl, sclip, groupvit, unseen, unseen-among-all or
            all-as-unseen.
        max_photos: Number of photos to evaluate on, from the first one; None: all.
        watch: Wraps the photos to show progress.

    Returns:
        One row of results per setting of the protocol, with `mean_iou` and the IoU of each class.

    Raises:
        ValueError: Benchmark or protocol are unknown, or do not fit each other.
        OSError: A file of the benchmark cannot be read.

    Example:
        rows = maskfree.evaluate(maskfree.load(), "coco-mini", "data", protocol="sclip")
        print(rows[0].mean_iou)
    """
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"the protocol {protocol!r} is unknown: choose from {', '.join(PROTOCOLS)}"
        )
    if max_photos is not None and max_photos < 1:
        raise ValueError(f"max_photos {max_photos}: at least one photo is needed")

    found = find_benchmark(benchmark, Path(root))
    planned = PROTOCOLS[protocol](found)
    for each in planned:
        check(found, each)

    samples = found.samples(Path(root))[:max_photos]
    command = f"maskfree.evaluate(model, {benchmark!r}, protocol={protocol!r})"
    work = EvalJob(found, samples, command, watch=watch)
    return [measure(model, each, work, protocol).row for each in planned]

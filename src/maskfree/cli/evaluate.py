"""The `maskfree evaluate` command: a model on segmentation benchmarks, or another evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional, arg

from maskfree.cli.common import Hardware, keep_freed_memory
from maskfree.cli.evaluate_options import (
    Changes,
    EvaluationOutput,
    Planned,
    parse_sweep,
    plan_protocols,
)
from maskfree.cli.kinds import Kind, describe, run_kind
from maskfree.cli.parsing import parse_call
from maskfree.config.extras import need

if TYPE_CHECKING:
    from maskfree.data.benchmarks.catalog import Benchmark
    from maskfree.data.benchmarks.layouts import AnnotatedPhoto


def evaluate_what(arguments: Sequence[str]) -> int:
    """Parse the arguments of `evaluate` and run it; the options depend on the first one.

    Args:
        arguments: Command line after `evaluate`: benchmarks or a key of `KINDS`, then options.

    Returns:
        Exit status 0.
    """
    from maskfree.data.benchmarks.catalog import BENCHMARKS

    if not arguments:
        raise ValueError(f"say what to evaluate: {', '.join((*BENCHMARKS, *KINDS))}")
    if arguments[0] in KINDS:
        return run_kind(evaluate, KINDS, arguments)

    heading = (
        f"Benchmarks: {', '.join(BENCHMARKS)}.\n\n"
        "Other evaluations; `maskfree evaluate tracking --help` lists the options of one:"
    )
    described = describe(evaluate, KINDS, heading)
    return parse_call(evaluate, "maskfree evaluate", arguments, description=described)()


def evaluate(
    benchmarks: Annotated[Positional[tuple[str, ...]], arg(metavar="BENCHMARK ...")],
    data: Path,
    model: str = "pocket",
    protocol: tuple[str, ...] = ("own",),
    sweep: tuple[str, str] | None = None,
    changes: Annotated[Changes, OmitArgPrefixes] = Changes(),  # noqa: B008 - frozen
    output: Annotated[EvaluationOutput, OmitArgPrefixes] = EvaluationOutput(),  # noqa: B008 - frozen
    hardware: Annotated[Hardware, OmitArgPrefixes] = Hardware(),  # noqa: B008 - frozen
) -> int:
    """Evaluate a model on segmentation benchmarks, or by tracking, regions, retrieval or a probe.

    Benchmarks give mIoU, accuracies and the IoU of each class; each protocol gives rows of results.
    After an interruption the same command resumes the run. Under torchrun the processes share the
    photos.

    Args:
        benchmarks: Names of benchmarks; `maskfree datasets` describes them.
        data: Folder that contains the files of the benchmarks, or their folders.
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        protocol: Evaluation protocols: own, tcl, sclip, groupvit, unseen, unseen-among-all or
            all-as-unseen; each gives one row of results or more.
        sweep: Evaluate with each of several background thresholds: "threshold" and FIRST:LAST:STEP,
            for example threshold 0:1:0.05.
        changes: Settings that override the protocol's own.
        output: Output options.
        hardware: Device and batch size.

    Returns:
        Exit status 0.
    """
    # Check packages, arguments and data before importing torch and loading the model.
    if sweep or output.chart:
        need("a chart", "evaluate", modules=("matplotlib",))
    chosen = hardware.chosen_runtime()
    found = _find(benchmarks, data)

    thresholds: tuple[float, ...] = ()
    if sweep:
        thresholds = parse_sweep(sweep)
    if output.results.exists() and not output.results.is_dir():
        raise NotADirectoryError(f"the results {output.results} is a file: --results is a folder")

    keep_freed_memory()
    hardware.apply()
    from maskfree.cli.evaluate_rows import connect, measure_rows, sweep_rows
    from maskfree.evaluation.zero_shot import EvalJob
    from maskfree.hub import loading

    # Check every protocol before the first benchmark is evaluated.
    plan = [(each, samples, plan_protocols(each, protocol, changes)) for each, samples in found]
    for each, _, planned in plan:
        _check(each, planned, changes, sweep is not None)

    team, device = connect(hardware.device)
    segmenter = loading.load(model, device)
    inference = segmenter.inference.changed(batch_size=hardware.batch_size)
    segmenter = segmenter.with_inference(inference)
    # A row must not depend on what happens to be in the cache.
    if chosen != "auto":
        segmenter = segmenter.with_runtime(chosen)
    # Only the first process prints.
    console = Console(quiet=team.index > 0)

    for each, samples, planned in plan:
        # Each row records the command that reproduces it.
        command = ["maskfree", "evaluate", each.name, "--data", str(data), "--model", model]
        if segmenter.session is not None:
            command += ["--runtime", segmenter.runtime]
        if output.boundaries:
            command.append("--boundaries")
        if sweep:
            command += ["--sweep", *sweep]

        unfinished = output.results / ".unfinished"
        job = EvalJob(each, samples, shlex.join(command), output.boundaries, unfinished, team)
        if sweep:
            sweep_rows(segmenter, planned, thresholds, job, output, console)
        else:
            measure_rows(segmenter, planned, job, output, console)

    return 0


def _find(names: Sequence[str], data: Path) -> list[tuple[Benchmark, tuple[AnnotatedPhoto, ...]]]:
    """Benchmarks with their photos; reading the lists of photos finds missing files."""
    from maskfree.data.benchmarks import catalog

    if not names:
        raise ValueError(f"no benchmark was given: choose from {', '.join(catalog.BENCHMARKS)}")

    benchmarks = [catalog.benchmark(name, data) for name in names]
    return [(benchmark, benchmark.samples(data)) for benchmark in benchmarks]


def _check(
    benchmark: Benchmark, planned: Sequence[Planned], changes: Changes, sweeps: bool
) -> None:
    """Check that the protocols, or the sweep of their thresholds, suit a benchmark."""
    from maskfree.evaluation.protocol import check

    if sweeps and changes.background:
        raise ValueError("--sweep tries thresholds itself: leave --background out")
    if sweeps and not benchmark.background:
        raise ValueError(
            f"{benchmark.name} does not label its background: there is no threshold to sweep"
        )

    for one in planned:
        protocol = one.protocol
        if sweeps:
            protocol = replace(protocol, background="threshold:0")
        check(benchmark, protocol)


def _load_tracking() -> Callable[..., int]:
    from maskfree.cli.evaluate_tracking import tracking

    return tracking


def _load_regions() -> Callable[..., int]:
    from maskfree.cli.evaluate_regions import regions

    return regions


def _load_knn() -> Callable[..., int]:
    from maskfree.cli.evaluate_knn import knn

    return knn


def _load_linear() -> Callable[..., int]:
    from maskfree.cli.evaluate_linear import linear

    return linear


def _load_retrieval() -> Callable[..., int]:
    from maskfree.cli.evaluate_retrieval import retrieval

    return retrieval


KINDS = {
    "tracking": Kind("Masks propagated through the videos of DAVIS: J and F.", _load_tracking),
    "regions": Kind("Regions without labels on BSDS500: boundaries and covering.", _load_regions),
    "knn": Kind("Frozen embeddings of a model, by nearest labeled segments.", _load_knn),
    "linear": Kind("Frozen embeddings of a model, by a linear classifier.", _load_linear),
    "retrieval": Kind("Photos and captions that find each other: recall.", _load_retrieval),
}
"""Evaluations other than that on benchmarks; no benchmark has one of these names."""

"""The commands `maskfree evaluate`, `maskfree datasets` and `maskfree compare`: benchmarks."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import Hardware, keep_freed_memory
from maskfree.config.extras import need
from maskfree.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from maskfree.data.benchmarks.catalog import Benchmark
    from maskfree.evaluation.evaluator import DistInfo
    from maskfree.evaluation.protocol import Protocol
    from maskfree.evaluation.zero_shot import EvalJob
    from maskfree.inference.segmenter import Segmenter

MOST_THRESHOLDS = 1001
"""Largest number of background thresholds in a sweep."""


@dataclass(frozen=True)
class Changes:
    """Settings that override a protocol's own; each name set and background rule gives a row."""

    names: tuple[str, ...] = ()
    """Sets of class names of the benchmark, such as plain or synonyms."""
    background: tuple[str, ...] = ()
    """Background rules, as for `segment`; with "none" only pixels of a class are evaluated."""
    templates: str | None = None
    """Prompt templates: plain, photo or ensemble, or a prompt with {} for the class name."""
    side_px: int | None = None
    """Length in pixels to which the shorter side of a photo is resized."""
    smooth: int | None = None
    """Window width, in patches, of the spatial averaging of scores; 1 turns it off."""
    class_prior: float | None = None
    """Weight of the image-level class prior; 0 turns it off."""
    refine: str | None = None
    """Refinement of the scores at pixel resolution: none (bilinear upsampling), pamr or crf."""

    def options(self, protocol: Protocol) -> list[str]:
        """Command-line options that reproduce one changed protocol.

        Args:
            protocol: A protocol that `apply` returned.

        Returns:
            Options that make it of the protocol that `apply` was given.
        """
        # The protocol has one of the names and background rules; other settings have one value.
        options = ["--names", protocol.names, "--background", protocol.background]
        for name in (f.name for f in fields(self) if f.name not in ("names", "background")):
            if getattr(self, name) is not None:
                options += [f"--{name.replace('_', '-')}", str(getattr(self, name))]

        return options

    def apply(self, protocol: Protocol) -> list[Protocol]:
        """Apply the changes to a protocol.

        Args:
            protocol: Protocol to change.

        Returns:
            A changed protocol for each combination of background rule and name set.
        """
        # Settings with one value; None keeps the protocol's own.
        inference = protocol.inference.changed(side_px=self.side_px, refine=self.refine)
        single = {name: getattr(self, name) for name in ("templates", "smooth", "class_prior")}
        given = {name: value for name, value in single.items() if value is not None}
        changed = replace(protocol, inference=inference, **given)

        return [
            replace(changed, names=names, background=background)
            for background in self.background or (protocol.background,)
            for names in self.names or (protocol.names,)
        ]


@dataclass(frozen=True)
class Planned:
    """A protocol to evaluate."""

    protocol: Protocol
    """Settings of the evaluation."""
    name: str
    """Name of the protocol in the rows of results."""
    options: tuple[str, ...]
    """Command-line options that select this protocol alone."""


@dataclass(frozen=True)
class EvaluationOutput:
    """Output options of the evaluation."""

    results: Path = Path("results")
    """Output folder for the rows of results."""
    report: bool = False
    """Also write an HTML report of errors: confusions, the ten best and the ten worst photos."""
    photos: bool = True
    """Show photos in the report; without, it has only label maps, to share where photos must not be."""
    chart: bool = False
    """Also write a bar chart of the IoU of each class, as SVG."""
    boundaries: bool = False
    """Also measure the boundary F-score."""
    quiet: bool = False
    """Do not show progress."""


def evaluate(
    benchmarks: Positional[tuple[str, ...]],
    data: Path,
    model: str = "pocket",
    protocol: tuple[str, ...] = ("own",),
    sweep: tuple[str, str] | None = None,
    changes: Annotated[Changes, OmitArgPrefixes] = Changes(),
    output: Annotated[EvaluationOutput, OmitArgPrefixes] = EvaluationOutput(),
    hardware: Annotated[Hardware, OmitArgPrefixes] = Hardware(),  # noqa: B008 - frozen
) -> int:
    """Evaluate a model on segmentation benchmarks: mIoU, accuracies, IoU of each class.

    Each protocol gives rows of results. After an interruption the same command resumes the run.
    Under torchrun the processes share the photos.

    Args:
        benchmarks: Names of benchmarks; `maskfree datasets` lists them.
        data: Folder that contains the files of the benchmarks, or their folders.
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
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
    from maskfree.data.benchmarks import catalog as known

    # Check packages, arguments and data before importing torch and loading the model.
    if sweep or output.chart:
        need("a chart", "evaluate", modules=("matplotlib",))
    if not benchmarks:
        raise ValueError(f"no benchmark was given: choose from {', '.join(known.BENCHMARKS)}")

    # Reading the lists of photos finds missing files.
    thresholds = _thresholds(sweep) if sweep else ()
    if output.results.exists() and not output.results.is_dir():
        raise NotADirectoryError(f"the results {output.results} is a file: --results is a folder")
    found = [
        (each, each.samples(data)) for each in (known.benchmark(name, data) for name in benchmarks)
    ]

    keep_freed_memory()
    from maskfree.evaluation.protocol import check
    from maskfree.hub import loading

    # Check every protocol before the first benchmark is evaluated.
    plan = [(each, samples, _protocols(each, protocol, changes)) for each, samples in found]
    if sweep and changes.background:
        raise ValueError("--sweep tries thresholds itself: leave --background out")
    for each, _, planned in plan:
        if sweep and not each.background:
            raise ValueError(
                f"{each.name} does not label its background: there is no threshold to sweep"
            )
        for one in planned:
            check(each, replace(one.protocol, background="threshold:0") if sweep else one.protocol)

    team, device = _team(hardware.device)
    segmenter = loading.load(model, device)
    segmenter = segmenter.with_inference(
        segmenter.inference.changed(batch_size=hardware.batch_size)
    )
    # Only the first process prints.
    console = Console(quiet=team.index > 0)

    from maskfree.evaluation.zero_shot import EvalJob

    # Each row records the command that reproduces it.
    for each, samples, planned in plan:
        command = ["maskfree", "evaluate", each.name, "--data", str(data), "--model", model]
        command += ["--boundaries"] if output.boundaries else []
        work = EvalJob(
            each,
            samples,
            shlex.join(command),
            output.boundaries,
            output.results / ".unfinished",
            team,
        )

        if thresholds and sweep:
            work = replace(work, command=f"{work.command} --sweep {' '.join(sweep)}")
            _sweep(segmenter, planned, thresholds, work, output, console)
        else:
            _measure(segmenter, planned, work, output, console)

    return 0


def datasets(root: Path | None = None) -> int:
    """List the benchmarks and their layout on disk.

    With --root, also tell whether they are there or what is missing.

    Args:
        root: Folder that contains the files of the benchmarks, or their folders.

    Returns:
        Exit status 0.
    """
    from maskfree.data.benchmarks.inventory import overview

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for row in overview(root):
        console.print(f"{row.name}: {row.title}")
        for label, text in (
            ("layout", row.layout),
            ("source", row.source),
            ("found", row.state if root else ""),
        ):
            if text:
                console.print(f"  {label}: {text}")

    return 0


def compare(
    files: Positional[tuple[Path, ...]], out: Path | None = None, published: bool = False
) -> int:
    """Compare rows of results; a ranking contains only rows of one protocol and the same photos.

    Args:
        files: Files of rows that `maskfree evaluate` wrote.
        out: Chart of the rankings to write, .svg or .png.
        published: Also list the numbers that papers report for the same benchmarks, with their
            sources.

    Returns:
        Exit status.
    """
    from maskfree.evaluation.reporting.compare import run

    return run(files, out, published, Console())


def _thresholds(sweep: tuple[str, str]) -> tuple[float, ...]:
    """Parse the values of --sweep."""
    what, spelled = sweep
    if what != "threshold":
        raise ValueError(f"--sweep {what!r} is unknown: only threshold can be swept")

    try:
        first, last, step = map(float, spelled.split(":"))
    except ValueError as error:
        raise ValueError(
            f"--sweep threshold {spelled!r} is not FIRST:LAST:STEP, as in 0:1:0.05"
        ) from error

    # Thresholds are compared with cosines, which lie in [-1, 1].
    if not (-1 <= first <= last <= 1 and step > 0 and (last - first) / step < MOST_THRESHOLDS):
        raise ValueError(
            f"--sweep threshold {spelled!r}: -1 <= FIRST <= LAST <= 1, and at most {MOST_THRESHOLDS} steps above 0"
        )

    # The small term keeps the last threshold in spite of rounding errors.
    return tuple(round(first + i * step, 6) for i in range(int((last - first) / step + 1e-6) + 1))


def _protocols(benchmark: Benchmark, names: Sequence[str], changes: Changes) -> list[Planned]:
    """Protocols of the given names with the changes; those that differ are named "custom"."""
    from maskfree.evaluation.named_protocols import PROTOCOLS

    # By protocol, so that two names for the same settings are evaluated once.
    found: dict[Protocol, Planned] = {}

    for name in names:
        if name not in PROTOCOLS:
            raise ValueError(
                f"the protocol {name!r} is unknown: choose from {', '.join(PROTOCOLS)}"
            )

        made = PROTOCOLS[name](benchmark)
        for protocol in made:
            for changed in changes.apply(protocol):
                options = ("--protocol", name, *changes.options(changed))
                found.setdefault(
                    changed, Planned(changed, name if changed in made else "custom", options)
                )

    return list(found.values())


def _team(device: str) -> tuple[DistInfo, str]:
    """Connect to the other processes of torchrun, if any; return their layout and the device."""
    from maskfree.evaluation.evaluator import DistInfo

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return DistInfo(), device

    need("a run of several processes", "evaluate", modules=("lightning_fabric",))
    from maskfree.distributed import launch

    fabric = launch(device)

    def total(tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes.

        Args:
            tensor: Counts of this process.

        Returns:
            Their sum, on the CPU.
        """
        return cast("Tensor", fabric.all_reduce(tensor.to(fabric.device), reduce_op="sum")).cpu()

    return DistInfo(fabric.global_rank, fabric.world_size, total), str(fabric.device)


def _measure(
    segmenter: Segmenter,
    planned: Sequence[Planned],
    work: EvalJob,
    output: EvaluationOutput,
    console: Console,
) -> None:
    """Evaluate each protocol on one benchmark; write the rows, charts and reports."""
    from maskfree.evaluation.protocol import prepare
    from maskfree.evaluation.reporting import charts, tables
    from maskfree.evaluation.reporting.report import write_report
    from maskfree.evaluation.reporting.results import write_row
    from maskfree.evaluation.zero_shot import measure

    rows = []
    for one in planned:
        protocol = one.protocol
        measured = measure(segmenter, protocol, _watched(work, one, output), one.name)
        rows.append(measured.row)

        # Only the first process writes.
        if work.team.index:
            continue

        path = write_row(measured.row, output.results)

        if output.chart:
            rule = tables.short_rule(protocol.background)
            title = (
                f"{measured.row.benchmark}, {measured.row.model}, {protocol.names} names, {rule}"
            )
            charts.class_bars(
                measured.row.iou, title, path.with_suffix(".svg"), measured.row.mean_iou
            )

        if output.report:
            prepared = prepare(segmenter, work.benchmark, protocol)
            page = path.with_suffix(".html")
            write_report(
                measured,
                prepared,
                work.benchmark,
                work.samples,
                protocol,
                page,
                show_photos=output.photos,
            )

    console.print(tables.summary(rows), tables.by_class(rows))


def _sweep(
    segmenter: Segmenter,
    planned: Sequence[Planned],
    thresholds: Sequence[float],
    work: EvalJob,
    output: EvaluationOutput,
    console: Console,
) -> None:
    """Evaluate each protocol on one benchmark with every threshold; write the rows and curves."""
    from maskfree.evaluation.reporting import charts, tables
    from maskfree.evaluation.reporting.results import write_sweep
    from maskfree.evaluation.zero_shot import sweep

    swept = set()
    for one in planned:
        # Protocols that differ only in the background rule give the same sweep.
        once = replace(one.protocol, background="none")
        if once in swept:
            continue
        swept.add(once)

        rows = sweep(segmenter, once, thresholds, _watched(work, one, output), one.name)
        if not work.team.index:
            path = write_sweep(rows, output.results)
            charts.threshold_curve(rows, path.with_suffix(".svg"))
            console.print(tables.curve(rows), f"{path}, {path.with_suffix('.svg')}")


def _watched(work: EvalJob, planned: Planned, output: EvaluationOutput) -> EvalJob:
    """Add the progress bar, and the protocol's options in the recorded command."""
    options = planned.options

    # A sweep sets the background rule itself.
    if " --sweep " in work.command:
        place = options.index("--background")
        options = (*options[:place], *options[place + 2 :])

    label = f"{work.benchmark.name}, {planned.name}, {planned.protocol.names} names"
    watch = Progress(quiet=output.quiet or work.team.index > 0, title=label)
    return replace(work, command=f"{work.command} {shlex.join(options)}", watch=watch)

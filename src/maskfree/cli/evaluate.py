"""`maskfree evaluate`, `maskfree datasets` and `maskfree compare`."""

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


@dataclass(frozen=True)
class Changes:
    """What replaces a protocol's own settings; of several names or background rules, each gives a row."""

    names: tuple[str, ...] = ()
    """Name sets of the benchmark, such as plain or synonyms."""
    background: tuple[str, ...] = ()
    """Background rules, as for `segment`; with "none" only pixels of a class count."""
    templates: str | None = None
    """Prompt set, plain, photo or ensemble, or a prompt with {} for the name."""
    side_px: int | None = None
    """Shorter side of the photo as the network sees it."""
    smooth: int | None = None
    """Width in patches over which scores are averaged; 1 is none."""
    class_prior: float | None = None
    """Weight of how clearly a class wins in the whole photo; 0 is none."""
    refine: str | None = None
    """How scores are brought to pixels: none, pamr or crf."""

    def options(self, protocol: Protocol) -> list[str]:
        """Return the options that make PROTOCOL, one of those that `apply` gave, of the same ready-made one."""
        options = ["--names", protocol.names, "--background", protocol.background]
        for name in (f.name for f in fields(self) if f.name not in ("names", "background")):
            if getattr(self, name) is not None:
                options += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        return options

    def apply(self, protocol: Protocol) -> list[Protocol]:
        """Return PROTOCOL with the changes, once for each combination of names and background."""
        single = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("names", "background")
        }
        changed = replace(
            protocol, **{name: value for name, value in single.items() if value is not None}
        )
        return [
            replace(changed, names=names, background=background)
            for background in self.background or (protocol.background,)
            for names in self.names or (protocol.names,)
        ]


@dataclass(frozen=True)
class Planned:
    """A protocol to measure, the name that its rows bear, and the options that ask for it alone."""

    protocol: Protocol
    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Output:
    """What is written."""

    results: Path = Path("results")
    """Folder for the rows."""
    report: bool = False
    """Also write an HTML page with the errors: confusions, the ten best and the ten worst photos."""
    photos: bool = True
    """Show the photos in that page; without them it has label maps only, and may be passed on where photos may not."""
    chart: bool = False
    """Also draw the IoU of each class as an SVG picture."""
    boundaries: bool = False
    """Also measure the boundary F-score."""
    quiet: bool = False
    """Do not show how far it has come."""


def evaluate(
    benchmarks: Positional[tuple[str, ...]],
    data: Path,
    model: str = "pocket",
    protocol: tuple[str, ...] = ("own",),
    sweep: tuple[str, str] | None = None,
    changes: Annotated[Changes, OmitArgPrefixes] = Changes(),
    output: Annotated[Output, OmitArgPrefixes] = Output(),
    hardware: Annotated[Hardware, OmitArgPrefixes] = Hardware(),  # noqa: B008 - frozen
) -> int:
    """Measure a model on BENCHMARKS (mIoU, accuracies, IoU of each class); each protocol gives rows of results.

    A run that was stopped goes on with the same command. Under torchrun the processes share the photos.

    Args:
        benchmarks: Names of benchmarks; `maskfree datasets` lists them.
        data: Folder that holds the benchmarks' files, or their folders.
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
        protocol: own, tcl, sclip, groupvit, unseen, unseen-among-all or all-as-unseen; each gives one row or more.
        sweep: "threshold" and FIRST:LAST:STEP, for example threshold 0:1:0.05: measure with each background threshold.
        changes: Settings that replace the protocol's own.
        output: What is written.
        hardware: Where the network runs.
    """
    from maskfree.data.benchmarks import catalog as known

    # What is missing or wrong is said before torch is imported and a model loaded.
    if sweep or output.chart:
        need("a chart", "evaluate", modules=("matplotlib",))
    if not benchmarks:
        raise ValueError(f"no benchmark was given: choose from {', '.join(known.BENCHMARKS)}")
    thresholds = _thresholds(sweep) if sweep else ()
    if output.results.exists() and not output.results.is_dir():
        raise NotADirectoryError(f"the results {output.results} is a file: --results is a folder")
    found = [
        (each, each.samples(data)) for each in (known.benchmark(name, data) for name in benchmarks)
    ]

    keep_freed_memory()
    from maskfree.evaluation.protocol import check
    from maskfree.hub import loading

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
    console = Console(quiet=team.index > 0)
    from maskfree.evaluation.zero_shot import EvalJob

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
    """List the benchmarks: their layout on disk and, under ROOT, whether they are there or what is missing.

    Args:
        root: Folder that holds the benchmarks' files, or their folders.
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
    """Put rows of results side by side; only those of one protocol and the same photos stand in one ranking.

    Args:
        files: Rows that `maskfree evaluate` wrote.
        out: Picture of the rankings to write, .svg or .png.
        published: Also list the papers' numbers for the same benchmarks, with their sources.
    """
    from maskfree.evaluation.reporting.compare import run

    return run(files, out, published, Console())


def _thresholds(sweep: tuple[str, str]) -> tuple[float, ...]:
    what, spelled = sweep
    if what != "threshold":
        raise ValueError(f"--sweep {what!r} is unknown: only threshold can be swept")
    try:
        first, last, step = map(float, spelled.split(":"))
    except ValueError as error:
        raise ValueError(
            f"--sweep threshold {spelled!r} is not FIRST:LAST:STEP, as in 0:1:0.05"
        ) from error
    if not (-1 <= first <= last <= 1 and step > 0 and (last - first) / step < MOST_THRESHOLDS):
        raise ValueError(
            f"--sweep threshold {spelled!r}: -1 <= FIRST <= LAST <= 1, and at most {MOST_THRESHOLDS} steps above 0"
        )
    return tuple(round(first + i * step, 6) for i in range(int((last - first) / step + 1e-6) + 1))


def _protocols(benchmark: Benchmark, names: Sequence[str], changes: Changes) -> list[Planned]:
    """Return the protocols of NAMES with the changes, each once, under its name or as "custom"."""
    from maskfree.evaluation.protocol import PROTOCOLS

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
    """Join the other processes, if there are any; return how they share the work, and this one's device."""
    from maskfree.evaluation.evaluator import DistInfo

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return DistInfo(), device
    need("a run of several processes", "evaluate", modules=("lightning_fabric",))
    from maskfree.distributed import launch

    fabric = launch(device)

    def total(tensor: Tensor) -> Tensor:
        return cast("Tensor", fabric.all_reduce(tensor.to(fabric.device), reduce_op="sum")).cpu()

    return DistInfo(fabric.global_rank, fabric.world_size, total), str(fabric.device)


def _measure(
    segmenter: Segmenter,
    planned: Sequence[Planned],
    work: EvalJob,
    output: Output,
    console: Console,
) -> None:
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
    output: Output,
    console: Console,
) -> None:
    from maskfree.evaluation.reporting import charts, tables
    from maskfree.evaluation.reporting.results import write_sweep
    from maskfree.evaluation.zero_shot import sweep

    swept = set()
    for one in planned:
        once = replace(one.protocol, background="none")
        if once in swept:
            continue
        swept.add(once)
        rows = sweep(segmenter, once, thresholds, _watched(work, one, output), one.name)
        if not work.team.index:
            path = write_sweep(rows, output.results)
            charts.threshold_curve(rows, path.with_suffix(".svg"))
            console.print(tables.curve(rows), f"{path}, {path.with_suffix('.svg')}")


def _watched(work: EvalJob, planned: Planned, output: Output) -> EvalJob:
    """Add what shows progress, and the options to the command."""
    options = planned.options
    if " --sweep " in work.command:
        place = options.index("--background")
        options = (*options[:place], *options[place + 2 :])
    label = f"{work.benchmark.name}, {planned.name}, {planned.protocol.names} names"
    watch = Progress(quiet=output.quiet or work.team.index > 0, title=label)
    return replace(work, command=f"{work.command} {shlex.join(options)}", watch=watch)

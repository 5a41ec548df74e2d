"""Runs of `maskfree evaluate`: measure protocols, write rows, charts and reports."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from rich.console import Console

from maskfree.cli.evaluate_options import EvaluationOutput, Planned
from maskfree.config.extras import need
from maskfree.files.atomic import replace_text
from maskfree.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from maskfree.evaluation.protocol import Protocol
    from maskfree.evaluation.result_cache import DistInfo
    from maskfree.evaluation.zero_shot import EvalJob, EvalResult
    from maskfree.inference.segmenter import Segmenter


def connect(device: str) -> tuple[DistInfo, str]:
    """Connect to the other processes of torchrun, if any.

    Args:
        device: Device as the user named it.

    Returns:
        Layout of the processes, and the device of this one.
    """
    from maskfree.evaluation.result_cache import DistInfo

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


def measure_rows(
    segmenter: Segmenter,
    planned: Sequence[Planned],
    work: EvalJob,
    output: EvaluationOutput,
    console: Console,
) -> None:
    """Evaluate each protocol on one benchmark; write the rows, charts and reports.

    Args:
        segmenter: Model to evaluate.
        planned: Protocols.
        work: The benchmark, its photos and the recorded command.
        output: Output options.
        console: Console to print the tables to.
    """
    from maskfree.evaluation.reporting import tables
    from maskfree.evaluation.zero_shot import measure

    rows = []
    for one in planned:
        measured = measure(segmenter, one.protocol, _watched(work, one, output), one.name)
        rows.append(measured.row)

        # Only the first process writes.
        if not work.team.index:
            _write(measured, segmenter, one.protocol, work, output)

    console.print(tables.summary(rows), tables.by_class(rows))


def sweep_rows(
    segmenter: Segmenter,
    planned: Sequence[Planned],
    thresholds: Sequence[float],
    work: EvalJob,
    output: EvaluationOutput,
    console: Console,
) -> None:
    """Evaluate each protocol on one benchmark with every threshold; write the rows and curves.

    Args:
        segmenter: Model to evaluate.
        planned: Protocols.
        thresholds: Background thresholds.
        work: The benchmark, its photos and the recorded command.
        output: Output options.
        console: Console to print the tables to.
    """
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


def _write(
    measured: EvalResult,
    segmenter: Segmenter,
    protocol: Protocol,
    work: EvalJob,
    output: EvaluationOutput,
) -> None:
    """Write the row of a protocol, and on request its chart and report beside it."""
    from maskfree.evaluation.protocol import prepare
    from maskfree.evaluation.reporting import charts, tables
    from maskfree.evaluation.reporting.reliability_diagram import as_file, reliability_diagram
    from maskfree.evaluation.reporting.report import write_report
    from maskfree.evaluation.reporting.results import write_row

    row = measured.row
    path = write_row(row, output.results)

    if output.chart:
        rule = tables.short_rule(protocol.background)
        title = f"{row.benchmark}, {row.model}, {protocol.names} names, {rule}"
        charts.class_bars(row.iou, title, path.with_suffix(".svg"), row.mean_iou)

    if output.report:
        write_report(
            measured,
            prepare(segmenter, work.benchmark, protocol),
            work.benchmark,
            work.samples,
            protocol,
            path.with_suffix(".html"),
            show_photos=output.photos,
        )
        if row.reliability is not None:
            diagram = reliability_diagram(row.reliability, f"{row.model} on {row.benchmark}")
            replace_text(path.with_name(f"{path.stem}-reliability.svg"), as_file(diagram))


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

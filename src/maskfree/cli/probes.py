"""What `maskfree evaluate knn` and `evaluate linear` have in common: options and the run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from maskfree.cli.common import Network, keep_freed_memory
from maskfree.evaluation.probes.config import KnnConfig, LinearConfig
from maskfree.progress import Progress, Watch

if TYPE_CHECKING:
    from maskfree.data.benchmarks.catalog import Benchmark
    from maskfree.evaluation.probes.common import ProbeRow, Split
    from maskfree.inference.segmenter import Segmenter


@dataclass(frozen=True)
class ProbeOutput:
    """Output options."""

    results: Path = Path("results")
    """Output folder for the row of results."""
    quiet: bool = False
    """Do not show progress."""


def run_probe(
    kind: str,
    benchmark: str,
    data: Path,
    model: str,
    output: ProbeOutput,
    network: Network,
    config: KnnConfig | LinearConfig,
) -> int:
    """Fit a classifier on a model's frozen embeddings, measure it, and write a row of results.

    Args:
        kind: Kind of `maskfree evaluate`, for the recorded command.
        benchmark: Name of a benchmark.
        data: Folder that contains the files of the benchmarks, or their folders.
        model: Name of a model or folder of a checkpoint.
        output: Output options.
        network: Input resolution and device of the network.
        config: Settings of the classifier.

    Returns:
        Exit status 0.

    Raises:
        ValueError, OSError: A setting, the model or the data is not usable.
    """
    from maskfree.data.benchmarks import catalog

    # Check arguments and folders before importing torch and loading the model.
    config.check()
    if output.results.exists() and not output.results.is_dir():
        raise NotADirectoryError(f"the results {output.results} is a file: --results is a folder")

    chosen = catalog.benchmark(benchmark, data)
    chosen.samples(data)

    keep_freed_memory()
    network.apply()
    from maskfree.evaluation.probes import common
    from maskfree.evaluation.reporting import tables
    from maskfree.evaluation.reporting.results import write_row
    from maskfree.hub import loading

    parts, taught_by = common.splits(chosen, data)
    loaded = loading.load(model, network.device)
    segmenter = loaded.with_inference(loaded.inference.changed(side_px=network.side_px))

    # The recorded command has the resolution in use, also where it was the model's own.
    command = ["maskfree", "evaluate", kind, chosen.name, "--data", str(data), "--model", model]
    command += ["--side-px", str(segmenter.inference.side_px), *_options(config)]

    found = _probe(segmenter, chosen, parts, config, Progress(output.quiet, chosen.name))
    row = common.results_row(
        found, chosen, parts, taught_by, segmenter, config, shlex.join(command)
    )
    path = write_row(row, output.results)

    console = Console()
    console.print(tables.summary([row]), tables.by_class([row]))
    console.print(
        f"taught by masks of {taught_by}: {path}", highlight=False, markup=False, soft_wrap=True
    )
    return 0


def _probe(
    segmenter: Segmenter,
    benchmark: Benchmark,
    parts: Sequence[Split],
    config: KnnConfig | LinearConfig,
    watch: Watch,
) -> ProbeRow:
    """Probe each split and add up the results."""
    from maskfree.evaluation.probes.common import classes_of
    from maskfree.evaluation.probes.knn import knn_probe
    from maskfree.evaluation.probes.linear import linear_probe

    # Confusion counts are added, so that IoU is computed over all photos.
    rows = []
    for part in parts:
        if isinstance(config, KnnConfig):
            rows.append(
                knn_probe(segmenter, part.train, part.test, classes_of(benchmark), config, watch)
            )
        else:
            rows.append(
                linear_probe(segmenter, part.train, part.test, classes_of(benchmark), config, watch)
            )

    return sum(rows[1:], start=rows[0])


def _options(config: KnnConfig | LinearConfig) -> list[str]:
    """Command-line options for the settings that differ from their defaults."""
    options = []
    for field in fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            options += [f"--{field.name.replace('_', '-')}", str(value)]
    return options

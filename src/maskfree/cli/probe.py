"""The `maskfree probe` command: k-NN and linear probing of a model's patch embeddings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import keep_freed_memory
from maskfree.evaluation.probes.config import KnnConfig, LinearConfig
from maskfree.progress import Progress, Watch

if TYPE_CHECKING:
    from maskfree.data.benchmarks.catalog import Benchmark
    from maskfree.evaluation.probes.common import ProbeRow, Split
    from maskfree.inference.segmenter import Segmenter


@dataclass(frozen=True)
class ProbeNetwork:
    """Input resolution and device of the network."""

    side_px: int | None = None
    """Length in pixels to which the shorter side of a photo is resized; None: the model's own."""
    device: str = "auto"
    """Device: auto (the first available of cuda, mps and cpu), cpu, mps, cuda or cuda:N."""


@dataclass(frozen=True)
class ProbeOutput:
    """Output options of the probe."""

    results: Path = Path("results")
    """Output folder for the row of results."""
    quiet: bool = False
    """Do not show progress."""


def probe(
    benchmark: Positional[str],
    data: Path,
    by: Literal["knn", "linear"],
    model: str = "pocket",
    output: Annotated[ProbeOutput, OmitArgPrefixes] = ProbeOutput(),
    sight: Annotated[ProbeNetwork, OmitArgPrefixes] = ProbeNetwork(),
    knn: Annotated[KnnConfig, OmitArgPrefixes] = KnnConfig(),  # noqa: B008 - frozen
    linear: Annotated[LinearConfig, OmitArgPrefixes] = LinearConfig(),  # noqa: B008 - frozen
) -> int:
    """Probe a model's frozen embeddings with a k-NN or linear classifier fit on labeled masks.

    The network is not trained, and its text encoder is not used. The classifier is fit on the
    benchmark's training photos; if it has none, each half of its photos is evaluated with a
    classifier fit on the other half.

    Args:
        benchmark: Name of a benchmark; `maskfree datasets` lists them.
        data: Folder that contains the files of the benchmarks, or their folders.
        by: Classifier: knn gives a segment the class of the nearest training segments, linear is a
            linear classifier of pixels.
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
        output: Output options.
        sight: Input resolution and device of the network.
        knn: Settings for --by knn.
        linear: Settings for --by linear.

    Returns:
        Exit status 0.
    """
    from maskfree.data.benchmarks import catalog as known

    # Check arguments and folders before importing torch and loading the model.
    # Options of the other classifier would be silently ignored, so they are errors.
    config, other = (knn, linear) if by == "knn" else (linear, knn)
    config.check()
    if stray := _options(other):
        raise ValueError(f"{stray[0]} does nothing for --by {by}")

    if output.results.exists() and not output.results.is_dir():
        raise NotADirectoryError(f"the results {output.results} is a file: --results is a folder")

    chosen = known.benchmark(benchmark, data)
    chosen.samples(data)

    keep_freed_memory()
    from maskfree.evaluation.probes import common
    from maskfree.evaluation.reporting import tables
    from maskfree.evaluation.reporting.results import write_row
    from maskfree.hub import loading

    parts, taught_by = common.splits(chosen, data)
    loaded = loading.load(model, sight.device)
    segmenter = loaded.with_inference(loaded.inference.changed(side_px=sight.side_px))

    # The recorded command has the resolution in use, also where it was the model's own.
    command = ["maskfree", "probe", chosen.name, "--data", str(data), "--by", by, "--model", model]
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
    changed: list[Any] = []
    for field in fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            changed += [f"--{field.name.replace('_', '-')}", str(value)]
    return changed

"""The `maskfree evaluate tracking` command: label propagation in videos, measured on DAVIS."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import keep_freed_memory, options_of, stay_offline
from maskfree.inference.tracking_config import TrackConfig
from maskfree.progress import Progress

if TYPE_CHECKING:
    from maskfree.evaluation.tracking import TrackRow


def tracking(
    davis: Positional[Path],
    model: str = "pocket",
    sequences: tuple[str, ...] = (),
    results: Path = Path("results"),
    settings: Annotated[TrackConfig, OmitArgPrefixes] = TrackConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    offline: bool = False,
    quiet: bool = False,
) -> int:
    """Propagate the first masks of DAVIS sequences and measure J and F.

    The measures are those of the official evaluation of DAVIS.

    Args:
        davis: Folder of DAVIS 2016 or 2017, which contains JPEGImages and Annotations.
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        sequences: Names of sequences, or of lists in ImageSets such as 2017/val; all by default.
        results: Output folder for the row of results, tracking-MODEL.json.
        settings: Settings of the label propagation from frame to frame.
        device: Device: auto (the first available of cuda, mps and cpu), cpu, mps, cuda or cuda:N.
        offline: Use no network: only models in the package, in folders and in the cache of Hugging
            Face.
        quiet: Do not show progress.

    Returns:
        Exit status 0.
    """
    from maskfree.data.benchmarks.davis import find_sequences

    if results.exists() and not results.is_dir():
        raise NotADirectoryError(f"the results {results} is a file: --results is a folder")
    find_sequences(davis, sequences)

    keep_freed_memory()
    stay_offline(offline)
    from maskfree.evaluation.tracking import track_benchmark, write_rows
    from maskfree.hub import loading

    segmenter = loading.load(model, device)
    rows = track_benchmark(
        segmenter,
        davis,
        settings.propagation,
        settings.side_px,
        finer=settings.finer,
        sequences=sequences,
        watch=Progress(quiet),
    )

    command = ["maskfree", "evaluate", "tracking", str(davis), "--model", model]
    command += ["--sequences", *sequences] if sequences else []
    command += [*options_of(settings), "--device", device]
    about = {"command": shlex.join(command), "protocol": asdict(settings)}

    path = write_rows(rows, segmenter, about, results)
    Console().print(_table(rows), str(path))
    return 0


def _table(rows: Sequence[TrackRow]) -> Table:
    """Table of J and F of each object, in percent."""
    # The columns of DAVIS's own evaluation.
    table = Table()
    measures = ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")

    table.add_column("sequence", no_wrap=True)
    table.add_column("object", justify="right")
    table.add_column("frames", justify="right")
    for name in measures:
        table.add_column(name.replace("_", " ").capitalize(), justify="right")

    for row in rows:
        cells = [_percent(getattr(row, name)) for name in measures]
        name = "all" if row.object is None else str(row.object)
        table.add_row(row.sequence, name, str(row.frames), *cells)

    return table


def _percent(value: float | None) -> str:
    """A share in percent, or a dash where it is not defined."""
    return "-" if value is None else f"{value:.1%}"

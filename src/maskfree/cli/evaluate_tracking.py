"""The `maskfree evaluate tracking` command: label propagation in videos, measured on DAVIS."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import Device, keep_freed_memory, options_of
from maskfree.inference.tracking_config import EVERY, TrackConfig
from maskfree.progress import Progress

if TYPE_CHECKING:
    from maskfree.evaluation.tracking import TrackRow


@dataclass(frozen=True)
class ByWords:
    """Measures segmentation by words instead of the propagation of a given mask."""

    by_words: bool = False
    """Give no mask: the words of a few known scenes name the objects."""
    every: int = EVERY
    """With --by-words: label every so many frames by the words; 0: only the first frame."""


def tracking(
    davis: Positional[Path],
    model: str = "pocket",
    sequences: tuple[str, ...] = (),
    results: Path = Path("results"),
    naming: Annotated[ByWords, OmitArgPrefixes] = ByWords(),
    settings: Annotated[TrackConfig, OmitArgPrefixes] = TrackConfig(),  # noqa: B008 - frozen
    hardware: Annotated[Device, OmitArgPrefixes] = Device(),  # noqa: B008 - frozen
    quiet: bool = False,
) -> int:
    """Propagate the first masks of DAVIS sequences, or segment them by words, and measure J and F.

    The measures are those of the official evaluation of DAVIS.

    Args:
        davis: Folder of DAVIS 2016 or 2017, which contains JPEGImages and Annotations.
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        sequences: Names of sequences, or of lists in ImageSets such as 2017/val; all by default.
        results: Output folder for the row of results: tracking-MODEL.json, or
            tracking-words-MODEL-every-N.json.
        naming: Segmentation by words instead of a given mask.
        settings: Settings of the label propagation from frame to frame.
        hardware: Device of the network.
        quiet: Do not show progress.

    Returns:
        Exit status 0.
    """
    from maskfree.data.benchmarks.davis import find_sequences
    from maskfree.data.benchmarks.davis_words import DAVIS_WORDS, worded_sequences

    if results.exists() and not results.is_dir():
        raise NotADirectoryError(f"the results {results} is a file: --results is a folder")
    if naming.every < 0:
        raise ValueError(f"--every {naming.every} must not be negative")
    if naming.every != EVERY and not naming.by_words:
        raise ValueError("--every labels frames by words: give --by-words too")
    find_sequences(davis, sequences)
    worded = worded_sequences(davis, sequences) if naming.by_words else ()

    keep_freed_memory()
    hardware.apply()
    from maskfree.evaluation.tracking import track_benchmark, write_rows
    from maskfree.evaluation.tracking_by_words import track_by_words
    from maskfree.hub import loading

    segmenter = loading.load(model, hardware.device)
    about: dict[str, Any] = {}

    if naming.by_words:
        rows = track_by_words(segmenter, worded, settings, naming.every, Progress(quiet))
        about["every"] = naming.every
        about["words"] = {each.name: DAVIS_WORDS[each.name] for each in worded}
    else:
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
    command += ["--by-words", "--every", str(naming.every)] if naming.by_words else []
    command += [*options_of(settings), "--device", hardware.device]
    about |= {"command": shlex.join(command), "protocol": asdict(settings)}

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

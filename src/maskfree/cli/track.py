"""`maskfree track` and `maskfree evaluate-tracking`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import keep_freed_memory
from maskfree.progress import Progress

if TYPE_CHECKING:
    from maskfree.data.video import Clip
    from maskfree.evaluation.tracking import TrackRow
    from maskfree.inference.tracking import TrackConfig


@dataclass(frozen=True)
class Following:
    """How labels are carried from frame to frame, and where."""

    side_px: int = 720
    """Shorter side of a frame as the network sees it."""
    finer: int = 1
    """Cells a side that each patch of the network is divided into."""
    top_k: int = 5
    """Most similar places that a label is taken from."""
    context: int = 7
    """Frames before this one that are looked at, beside the first."""
    radius: int = 12
    """Cells, up, down and to the sides, within which they are looked for."""
    temperature: float = 0.1
    """Of the weights: the lower, the more the most similar place counts."""
    device: str = "auto"
    """auto (cuda, mps or cpu, the first that is there), cpu, mps, cuda or cuda:N."""

    def config(self) -> TrackConfig:
        """Return the settings as the API takes them."""
        from maskfree.inference.tracking import TrackConfig
        from maskfree.ops.propagation import PropagationConfig

        propagation = PropagationConfig(self.top_k, self.context, self.radius, self.temperature)
        return TrackConfig(propagation, self.side_px, self.finer)

    def options(self) -> list[str]:
        """Return the options that give these settings."""
        return [
            part
            for name, value in asdict(self).items()
            for part in (f"--{name.replace('_', '-')}", str(value))
        ]


@dataclass(frozen=True)
class Naming:
    """What is looked for, if it is words."""

    words: tuple[str, ...] = ()
    """As for `segment`; the first frame is labeled by them."""
    background: str = "none"
    """As for `segment`."""
    every: int = 0
    """Look for the words again in each so many frames; 0: in the first only."""


@dataclass(frozen=True)
class Output:
    """What is written and shown."""

    out: Path = Path("maskfree-track")
    """Folder for the results; made if need be."""
    animate: Literal["none", "webp", "gif", "mp4"] = "none"
    """Also write overlay.webp, .gif or .mp4."""
    quiet: bool = False
    """Do not show how far it has come."""


def track(
    clip: Positional[Path],
    first: Path | None = None,
    naming: Annotated[Naming, OmitArgPrefixes] = Naming(),
    model: str = "pocket",
    output: Annotated[Output, OmitArgPrefixes] = Output(),
    frames: int = 0,
    following: Annotated[Following, OmitArgPrefixes] = Following(),
) -> int:
    """Follow a first mask, or words, through CLIP: an index PNG for each frame, on request one moving overlay.

    Args:
        clip: A video file, an animated picture, or a folder whose photos are the frames.
        first: Mask of the first frame: a PNG of object numbers, or of 0 and 255.
        naming: What is looked for, if it is words.
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
        output: What is written and shown.
        frames: Only so many frames from the first one; 0: all.
        following: How labels are carried from frame to frame.
    """
    from maskfree.data.benchmarks.davis import read_objects
    from maskfree.data.video import check_length, need_video_files, open_clip, write_clip

    out, animate = output.out, output.animate

    # What is wrong in the arguments is said before the seconds that torch takes to be imported.
    if (first is None) == (not naming.words):
        raise ValueError("give either --first MASK.png or --words WORD...: what is to be followed")
    if frames < 0 or naming.every < 0:
        raise ValueError(f"--frames {frames} and --every {naming.every} must not be negative")
    if naming.every and first is not None:
        raise ValueError("--every looks for words again: a first mask has none")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"the output {out} is a file: --out is a folder")
    if animate == "mp4":
        need_video_files()
    opened = open_clip(clip)
    total = min((count for count in (frames, opened.num_frames) if count), default=None)
    moving = out / f"overlay.{animate}"
    check_length(total or 1, moving)
    mask = None if first is None else read_objects(first)
    _check_outputs(out, opened, first, [moving] if animate != "none" else [])

    keep_freed_memory()
    from maskfree.hub import loading
    from maskfree.inference.tracking import follow_mask, follow_words, plain_overlay, save_clip

    config = following.config()
    segmenter = loading.load(model, following.device)
    shown = islice(opened.frames(), frames or None)
    if mask is None:
        results = follow_words(
            segmenter.with_words(naming.words, naming.background), shown, config, naming.every
        )
    else:
        results = follow_mask(segmenter, shown, mask, config)
    saved = save_clip(Progress(output.quiet)(results, clip.name, total), out)
    animated = animate != "none"
    count = (
        write_clip(map(plain_overlay, saved), moving, opened.rate)
        if animated
        else sum(1 for _ in saved)
    )
    Console(highlight=False, markup=False, soft_wrap=True).print(f"{clip}: {count} frames -> {out}")
    return 0


def evaluate_tracking(
    davis: Positional[Path],
    model: str = "pocket",
    sequences: tuple[str, ...] = (),
    results: Path = Path("results"),
    following: Annotated[Following, OmitArgPrefixes] = Following(),
    quiet: bool = False,
) -> int:
    """Follow the first masks of DAVIS's sequences and measure J and F, as its own evaluation does.

    Args:
        davis: Folder of DAVIS 2016 or 2017, which holds JPEGImages and Annotations.
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
        sequences: Names of sequences, or of lists in ImageSets such as 2017/val; all by default.
        results: Folder for the row, tracking-MODEL.json.
        following: How labels are carried from frame to frame.
        quiet: Do not show how far it has come.
    """
    from maskfree.data.benchmarks.davis import find_sequences

    if results.exists() and not results.is_dir():
        raise NotADirectoryError(f"the results {results} is a file: --results is a folder")
    find_sequences(davis, sequences)

    keep_freed_memory()
    from maskfree.evaluation.tracking import track_benchmark, write_rows
    from maskfree.hub import loading

    config = following.config()
    segmenter = loading.load(model, following.device)
    rows = track_benchmark(
        segmenter,
        davis,
        config.propagation,
        config.side_px,
        finer=config.finer,
        sequences=sequences,
        watch=Progress(quiet),
    )
    command = ["maskfree", "evaluate-tracking", str(davis), "--model", model]
    command += ["--sequences", *sequences] if sequences else []
    about = {"command": shlex.join([*command, *following.options()]), "protocol": asdict(config)}
    path = write_rows(rows, segmenter, about, results)
    Console().print(_table(rows), str(path))
    return 0


def _check_outputs(out: Path, clip: Clip, first: Path | None, animated: Sequence[Path]) -> None:
    """Make sure that no result overwrites what the run reads, or what no run of maskfree wrote."""
    from maskfree.files.leftovers import remove_leftovers
    from maskfree.files.outputs import Outputs, check_replaceable

    labels = out / "labels"
    for folder in (out, labels):
        remove_leftovers(folder)
    if clip.photos and out.is_dir() and out.samefile(clip.source):
        raise ValueError(
            f"{out} holds the frames, and would hold results among them: give another --out"
        )

    outputs = Outputs([clip.source, *clip.photos, *([first] if first else [])])
    outputs.add_folder(labels)
    outputs.add(*(labels / f"{photo.stem}.png" for photo in clip.photos))
    single = [out / "track.json", out / "first.png", *animated]
    outputs.add(*single)
    check_replaceable(*single, *labels.glob("*.png"))


def _table(rows: Sequence[TrackRow]) -> Table:
    """J and F of each object, in percent."""
    table = Table()
    measures = ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")
    for title in (
        "sequence",
        "object",
        "frames",
        *(name.replace("_", " ").capitalize() for name in measures),
    ):
        named = title == "sequence"
        table.add_column(title, justify="left" if named else "right", no_wrap=named)
    for row in rows:
        values = (getattr(row, name) for name in measures)
        cells = ("-" if value is None else f"{value:.1%}" for value in values)
        table.add_row(
            row.sequence, "all" if row.object is None else str(row.object), str(row.frames), *cells
        )
    return table

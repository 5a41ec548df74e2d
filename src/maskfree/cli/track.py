"""The commands `maskfree track` and `maskfree evaluate-tracking`: video label propagation."""

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
    from maskfree.inference.tracking_config import TrackConfig


@dataclass(frozen=True)
class Following:
    """Settings of the label propagation from frame to frame, and the device."""

    side_px: int = 720
    """Length in pixels to which the shorter side of a frame is resized."""
    finer: int = 1
    """Number of cells per side into which each patch of the network is divided."""
    top_k: int = 5
    """Number of most similar positions from which a label is taken."""
    context: int = 7
    """Number of previous frames that labels are taken from, in addition to the first frame."""
    radius: int = 12
    """Search radius, in cells: largest vertical and horizontal distance of these positions."""
    temperature: float = 0.1
    """Temperature of the weights: the lower, the more the most similar position counts."""
    device: str = "auto"
    """Device: auto (the first available of cuda, mps and cpu), cpu, mps, cuda or cuda:N."""

    def config(self) -> TrackConfig:
        """Convert to the configuration class of the API.

        Returns:
            Tracking settings, without the device.
        """
        from maskfree.inference.tracking_config import TrackConfig
        from maskfree.ops.propagation_config import PropagationConfig

        propagation = PropagationConfig(self.top_k, self.context, self.radius, self.temperature)
        return TrackConfig(propagation, self.side_px, self.finer)

    def options(self) -> list[str]:
        """Command-line options that give these settings.

        Returns:
            All options with their values, also those that are defaults.
        """
        return [
            part
            for name, value in asdict(self).items()
            for part in (f"--{name.replace('_', '-')}", str(value))
        ]


@dataclass(frozen=True)
class Naming:
    """Words to segment and follow, instead of a mask."""

    words: tuple[str, ...] = ()
    """Class names, as for `segment`, with which the first frame is segmented."""
    background: str = "none"
    """Background rule, as for `segment`."""
    every: int = 0
    """Segment again every so many frames; 0: only the first frame."""


@dataclass(frozen=True)
class TrackOutput:
    """Output options of the tracking."""

    out: Path = Path("maskfree-track")
    """Output folder for the results; created if it does not exist."""
    animate: Literal["none", "webp", "gif", "mp4"] = "none"
    """Also write an animated overlay: overlay.webp, .gif or .mp4."""
    quiet: bool = False
    """Do not show progress."""


def track(
    clip: Positional[Path],
    first: Path | None = None,
    naming: Annotated[Naming, OmitArgPrefixes] = Naming(),
    model: str = "pocket",
    output: Annotated[TrackOutput, OmitArgPrefixes] = TrackOutput(),
    frames: int = 0,
    following: Annotated[Following, OmitArgPrefixes] = Following(),
) -> int:
    """Propagate a mask of the first frame, or a segmentation by words, through a video.

    Each frame gets a label map (an index PNG), and on request the clip gets an animated overlay.

    Args:
        clip: A video file, an animated picture, or a folder whose photos are the frames.
        first: Mask of the first frame: a PNG of object numbers, or of 0 and 255.
        naming: Words to segment and follow, instead of a mask.
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
        output: Output options.
        frames: Number of frames to process, from the first one; 0: all.
        following: Settings of the label propagation.

    Returns:
        Exit status 0.
    """
    from maskfree.data.benchmarks.davis import read_objects
    from maskfree.data.clip_files import check_length, write_clip
    from maskfree.data.video import need_video_files, open_clip

    out, animate = output.out, output.animate

    # Check the arguments before importing torch, which takes seconds.
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

    # The length is None where the file does not say it.
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

    # Frames are computed lazily: consuming `saved` runs the propagation frame by frame.
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
    """Propagate the first masks of DAVIS sequences and measure J and F.

    The measures are those of the official evaluation of DAVIS.

    Args:
        davis: Folder of DAVIS 2016 or 2017, which contains JPEGImages and Annotations.
        model: Name of a model (see `maskfree models`) or folder of a checkpoint.
        sequences: Names of sequences, or of lists in ImageSets such as 2017/val; all by default.
        results: Output folder for the row of results, tracking-MODEL.json.
        following: Settings of the label propagation.
        quiet: Do not show progress.

    Returns:
        Exit status 0.
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
    """Check that no result overwrites an input of the run or a file that maskfree did not write."""
    from maskfree.files.leftovers import remove_leftovers
    from maskfree.files.outputs import Outputs, check_replaceable

    labels = out / "labels"
    for folder in (out, labels):
        remove_leftovers(folder)

    # Otherwise the next run would take results for frames.
    if clip.photos and out.is_dir() and out.samefile(clip.source):
        raise ValueError(
            f"{out} holds the frames, and would hold results among them: give another --out"
        )

    outputs = Outputs([clip.source, *clip.photos, *([first] if first else [])])
    outputs.add_folder(labels)
    outputs.add(*(labels / f"{photo.stem}.png" for photo in clip.photos))

    # The numbers of a video's frames are not known yet, so all label maps there are checked.
    single = [out / "track.json", out / "first.png", *animated]
    outputs.add(*single)
    check_replaceable(*single, *labels.glob("*.png"))


def _table(rows: Sequence[TrackRow]) -> Table:
    """Table of J and F of each object, in percent."""
    # The columns of DAVIS's own evaluation.
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

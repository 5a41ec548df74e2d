"""The `maskfree track` command: label propagation through a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import Execution, keep_freed_memory
from maskfree.inference.tracking_config import EVERY, TrackConfig
from maskfree.progress import Progress

if TYPE_CHECKING:
    from maskfree.data.video import Clip


@dataclass(frozen=True)
class Naming:
    """Words to segment and follow, instead of a mask."""

    words: tuple[str, ...] = ()
    """Class names, as for `segment`, by which frames are labeled."""
    background: str = "none"
    """Background rule, as for `segment`."""
    every: int = EVERY
    """Label every so many frames by the words; 0: only the first frame."""


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
    settings: Annotated[TrackConfig, OmitArgPrefixes] = TrackConfig(),  # noqa: B008 - frozen
    hardware: Annotated[Execution, OmitArgPrefixes] = Execution(),  # noqa: B008 - frozen
) -> int:
    """Propagate a mask of the first frame, or a segmentation by words, through a video.

    Each frame gets a label map (an index PNG), and on request the clip gets an animated overlay.

    Args:
        clip: A video file, an animated picture, or a folder whose photos are the frames.
        first: Mask of the first frame: a PNG of object numbers, or of 0 and 255.
        naming: Words to segment and follow, instead of a mask.
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        output: Output options.
        frames: Number of frames to process, from the first one; 0: all.
        settings: Settings of the label propagation from frame to frame.
        hardware: Device and runtime of the network.

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
    if naming.every != EVERY and first is not None:
        raise ValueError("--every looks for words again: a first mask has none")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"the output {out} is a file: --out is a folder")
    if animate == "mp4":
        need_video_files()
    chosen = hardware.chosen_runtime()

    # The length is None where the file does not say it.
    opened = open_clip(clip)
    total = min(filter(None, (frames, opened.num_frames)), default=None)
    moving = out / f"overlay.{animate}"
    check_length(total or 1, moving)

    mask = None if first is None else read_objects(first)

    animated = [moving] if animate != "none" else []
    _check_outputs(out, opened, first, animated)

    keep_freed_memory()
    hardware.apply()
    from maskfree.hub import loading
    from maskfree.inference.tracking import follow_mask, follow_words, plain_overlay, save_clip

    segmenter = loading.load(model, hardware.device).with_runtime(chosen)
    shown = islice(opened.frames(), frames or None)

    if mask is None:
        results = follow_words(
            segmenter.with_words(naming.words, naming.background),
            shown,
            settings,
            naming.every,
        )
    else:
        results = follow_mask(segmenter, shown, mask, settings)

    # Frames are computed lazily: consuming `saved` runs the propagation frame by frame.
    saved = save_clip(Progress(output.quiet)(results, clip.name, total), out)
    if animated:
        count = write_clip(map(plain_overlay, saved), moving, opened.rate)
    else:
        count = sum(1 for _ in saved)

    Console(highlight=False, markup=False, soft_wrap=True).print(f"{clip}: {count} frames -> {out}")
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

    inputs = [clip.source, *clip.photos]
    if first:
        inputs.append(first)
    outputs = Outputs(inputs)
    outputs.add_folder(labels)
    outputs.add(*(labels / f"{photo.stem}.png" for photo in clip.photos))

    # The numbers of a video's frames are not known yet, so all label maps there are checked.
    single = [out / "track.json", out / "first.png", *animated]
    outputs.add(*single)
    check_replaceable(*single, *labels.glob("*.png"))

"""The commands `maskfree prepare teacher` and `maskfree prepare prototypes`."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from rich.console import Console
from tyro.conf import Positional

from maskfree.cli.common import keep_freed_memory, stay_offline
from maskfree.config.rules import MapStorage
from maskfree.progress import Progress


def teacher(
    photos: Positional[tuple[str, ...]],
    out: Path,
    model: str = "pocket",
    side_px: int | None = None,
    storage: MapStorage = "float16",
    quiet: bool = False,
    device: str = "auto",
    offline: bool = False,
) -> int:
    """Precompute a teacher model's patch embeddings of photos, from which a student is trained.

    After an interruption the same command resumes the run.

    Args:
        photos: Folders of photos, or WebDataset shards: files, globs, or brace expressions such as
            train-{000..005}.tar.
        out: Output folder of the embeddings, one file per photo.
        model: The teacher: name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        side_px: Length in pixels to which the shorter side of a photo is resized; None: the model's
            own.
        storage: Number format of the embeddings; int8 takes half the room of float16.
        quiet: Do not show progress.
        device: Device: auto (the first available of cuda, mps and cpu), cpu, mps, cuda or cuda:N.
        offline: Use no network: only models in the package, in folders and in the cache of Hugging
            Face.

    Returns:
        Exit status 0.
    """
    from maskfree.data.photo_sources import read_sources

    # Check the photos before importing torch, which takes seconds.
    read_sources(photos)

    keep_freed_memory()
    stay_offline(offline)
    from maskfree.distillation.teacher_features import prepare_teacher
    from maskfree.hub import loading

    segmenter = loading.load(model, device)
    segmenter = segmenter.with_inference(segmenter.inference.changed(side_px=side_px))

    began = perf_counter()
    seen = prepare_teacher(segmenter, photos, out, Progress(quiet), storage)
    rate = seen.written / (perf_counter() - began)

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{out}: {seen.written} photos written, {seen.kept} were there, {seen.skipped} skipped; "
        f"{rate:.1f} photos/s"
    )
    return 0

"""The commands `maskfree prepare teacher` and `maskfree prepare prototypes`."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import keep_freed_memory
from maskfree.distillation.prototype_config import PrototypeConfig
from maskfree.progress import Progress


def teacher(
    photos: Positional[tuple[str, ...]],
    out: Path,
    model: str = "pocket",
    side_px: int | None = None,
    quiet: bool = False,
    device: str = "auto",
) -> int:
    """Precompute a teacher model's patch embeddings of photos, from which a student is trained.

    After an interruption the same command resumes the run.

    Args:
        photos: Folders of photos, or WebDataset shards: files, globs, or brace expressions such as
            train-{000..005}.tar.
        out: Output folder of the embeddings, one file per photo.
        model: Name of the teacher (see `maskfree models`) or folder of a checkpoint.
        side_px: Length in pixels to which the shorter side of a photo is resized; None: the model's
            own.
        quiet: Do not show progress.
        device: Device: auto (the first available of cuda, mps and cpu), cpu, mps, cuda or cuda:N.

    Returns:
        Exit status 0.
    """
    from maskfree.data.photo_sources import read_sources

    # Check the photos before importing torch, which takes seconds.
    read_sources(photos)

    keep_freed_memory()
    from maskfree.distillation.teacher_features import prepare_teacher
    from maskfree.hub import loading

    segmenter = loading.load(model, device)
    segmenter = segmenter.with_inference(segmenter.inference.changed(side_px=side_px))

    began = perf_counter()
    seen = prepare_teacher(segmenter, photos, out, Progress(quiet))
    rate = seen.written / (perf_counter() - began)

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{out}: {seen.written} photos written, {seen.kept} were there, {seen.skipped} skipped; {rate:.1f} photos/s"
    )
    return 0


def prototypes(
    teacher: Positional[Path],
    words: tuple[str, ...],
    out: Path,
    model: str = "pocket",
    templates: str = "",
    search: Annotated[PrototypeConfig, OmitArgPrefixes] = PrototypeConfig(),  # noqa: B008 - frozen
    quiet: bool = False,
) -> int:
    """Compute prototypes of words from precomputed teacher embeddings.

    They are the known classes when a student is trained.

    Args:
        teacher: Folder that `maskfree prepare teacher` wrote.
        words: Known classes, separated by commas or spaces; "/" separates synonyms (sofa/couch).
        out: Output file for the prototypes.
        model: The model that wrote the teacher folder.
        templates: Prompt templates: plain, photo or ensemble; the model's own if empty.
        search: Settings of the search.
        quiet: Do not show progress.

    Returns:
        Exit status 0.
    """
    from maskfree.data.cache.teacher_maps import TeacherMaps
    from maskfree.distillation.prototypes import prepare_prototypes
    from maskfree.hub import loading

    _check_file(out, teacher, Path(model))

    segmenter = loading.load(model).with_words(words, "none", templates or None)
    found, lost = prepare_prototypes(segmenter, TeacherMaps(teacher), search, Progress(quiet))
    found.write(out)

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{out}: prototypes of {len(found.names)} words, {len(found.pool)} segments for unknown classes"
    )
    if lost:
        console.print(
            f"  no segment resembles these most, so theirs are of something else: {', '.join(lost)}"
        )
    return 0


def _check_file(out: Path, teacher: Path, model: Path) -> None:
    """Check that writing prototypes overwrites no embeddings, no weights and no other file."""
    from maskfree.data.cache.prototypes import Prototypes
    from maskfree.files.outputs import Outputs

    if out.is_dir():
        raise IsADirectoryError(f"the output {out} is a folder: --out is a file")

    Outputs([*teacher.glob("*"), *model.glob("*")]).add(out)
    # An existing file is replaced only if it holds prototypes; reading anything else raises.
    if out.exists():
        Prototypes.read(out)

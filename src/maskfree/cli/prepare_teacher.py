"""`maskfree prepare teacher` and `maskfree prepare prototypes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import keep_freed_memory
from maskfree.progress import Progress


def teacher(
    photos: Positional[tuple[str, ...]],
    out: Path,
    model: str = "pocket",
    side_px: int | None = None,
    quiet: bool = False,
    device: str = "auto",
) -> int:
    """Write a model's embeddings of PHOTOS to OUT, from which a student learns; the same command goes on after a stop.

    Args:
        photos: Folders of photos, or WebDataset shards: files, globs, braces as in train-{000..005}.tar.
        out: Folder for the maps, one file a photo.
        model: Name of the teacher (see `maskfree models`) or folder of a checkpoint.
        side_px: Shorter side of the photos as the teacher sees them; None: the model's own.
        quiet: Do not show how far it has come.
        device: auto (cuda, mps or cpu, the first that is there), cpu, mps, cuda or cuda:N.
    """
    from maskfree.data.photo_sources import read_sources

    read_sources(
        photos
    )  # what is wrong with them is said before the seconds that torch takes to be imported

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


@dataclass(frozen=True)
class Search:
    """How known classes are found among the teacher's segments."""

    top: int = 32
    """Segments, those likest to a class, whose mean is its prototype."""
    num_segments: int = 36
    """Segments of each photo."""
    temperature: float = 0.01
    """Of the softmax over the classes of a segment's cosines to their names."""
    seed: int = 0
    """Of the choice of segments that are kept for unknown classes."""


def prototypes(
    teacher: Positional[Path],
    words: tuple[str, ...],
    out: Path,
    model: str = "pocket",
    templates: str = "",
    search: Annotated[Search, OmitArgPrefixes] = Search(),
    quiet: bool = False,
) -> int:
    """Find the prototypes of WORDS among what a model saw in photos: the known classes of a student's training.

    Args:
        teacher: Folder that `maskfree prepare teacher` wrote.
        words: Known classes; a comma separates words as a space does, "/" separates synonyms (sofa/couch).
        out: File for the prototypes.
        model: The model that wrote the folder.
        templates: Prompt set: plain, photo or ensemble; the model's own if empty.
        search: How they are found.
        quiet: Do not show how far it has come.
    """
    from maskfree.data.cache.teacher_maps import TeacherMaps
    from maskfree.distillation.prototypes import PrototypeConfig, prepare_prototypes
    from maskfree.hub import loading

    _check_file(out, teacher, Path(model))
    segmenter = loading.load(model).with_words(words, "none", templates or None)
    config = PrototypeConfig(search.top, search.num_segments, search.temperature, search.seed)
    found, lost = prepare_prototypes(segmenter, TeacherMaps(teacher), config, Progress(quiet))
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
    """Make sure that prototypes in OUT overwrite no map, no weights and no other file."""
    from maskfree.data.cache.prototypes import Prototypes
    from maskfree.files.outputs import Outputs

    if out.is_dir():
        raise IsADirectoryError(f"the output {out} is a folder: --out is a file")
    Outputs([*teacher.glob("*"), *model.glob("*")]).add(out)
    if out.exists():
        Prototypes.read(out)  # which says what it is, if it is no result of an earlier run

"""Outputs of `maskfree label` beside the label maps: list of doubtful photos, and formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maskfree.cli.common import note
from maskfree.config.rules import Fraction, check
from maskfree.progress import Watch

if TYPE_CHECKING:
    from maskfree.label.store import Store

# Photos left out of a format that are named.
_MAX_NAMED = 10


@dataclass(frozen=True)
class LabelOutput:
    """What is written beside the label maps, and what is done again."""

    format: tuple[str, ...] = ()
    """Formats that are written to OUT/FORMAT: masks, coco, coco-polygons, yolo, voc, mmseg, ade,
    huggingface, labelme, cvat, cvat-polygons, label-studio or label-studio-polygons."""
    link: Literal["hard", "symbolic", "copy"] = "hard"
    """How photos come into the folders of formats: hard links, symbolic links or copies."""
    review: Fraction = 0.05
    """Fraction of the photos, the least certain ones, that review.txt lists."""
    copy_review: Path | None = None
    """New folder for copies of the photos that review.txt lists, with their label maps."""
    redo: bool = False
    """Label all photos anew, also with other words, model or settings."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        check(self)


def check_formats(names: Sequence[str], out: Path) -> None:
    """Check the formats before hours of work.

    Args:
        names: Names of the formats.
        out: Folder of the data set.

    Raises:
        ValueError: There is no such format.
        FileExistsError: The folder of a format holds files that maskfree did not write.
    """
    if not names:
        return
    from maskfree.label.formats.folder import check_unchanged
    from maskfree.label.formats.registry import FORMATS

    for name in names:
        if name not in FORMATS:
            raise ValueError(f"there is no format {name!r}: {', '.join(FORMATS)} are there")
        check_unchanged(out / name)


def write_outputs(out: Path, output: LabelOutput, watch: Watch) -> list[str]:
    """Write what is made of the label maps.

    Args:
        out: Folder of the data set.
        output: What is to be written.
        watch: Wraps the photos of each format, to show progress.

    Returns:
        A line about each output.

    Raises:
        FileNotFoundError: The folder holds no labeled data set.
        OSError: A file cannot be written.
        ValueError: The manifest is damaged, or a format cannot hold the classes.
    """
    from maskfree.files.atomic import replace_text
    from maskfree.label.classes import classes_text
    from maskfree.label.record import classes_of, read_record
    from maskfree.label.report import REPORT, write_report
    from maskfree.label.review import REVIEW, copy_review, write_review
    from maskfree.label.store import Store

    record = read_record(out)
    if record is None:
        raise FileNotFoundError(f"{out} holds no labeled data set: give photos and --words")

    store = Store(out, classes_of(record))
    replace_text(out / "classes.txt", classes_text(store.classes))
    number = write_review(store, output.review)
    write_report(store, record)
    lines = [f"  to review: {num_photos(number)}, the least certain ones -> {out / REVIEW}"]
    lines.append(f"  report -> {out / REPORT}")
    if output.copy_review is not None:
        number = copy_review(store, output.review, output.copy_review)
        lines.append(f"  copied for review: {num_photos(number)} -> {output.copy_review}")
    for name in dict.fromkeys(output.format):
        lines.append(_write_format(name, store, output.link, watch))
    return lines


def num_photos(number: int) -> str:
    """Say a number of photos.

    Args:
        number: The number.

    Returns:
        Text such as "1 photo" or "20 photos".
    """
    return f"{number} photo" if number == 1 else f"{number} photos"


def _write_format(
    name: str, store: Store, link: Literal["hard", "symbolic", "copy"], watch: Watch
) -> str:
    """Write a format; return a line about it."""
    from maskfree.label.formats.registry import write_format

    folder = store.folder / name
    photos = watch(store.photos(), name, store.num_photos())
    written = write_format(name, store.classes, photos, folder, link)
    for reason in written.reasons[:_MAX_NAMED]:
        note(f"left out of {name}: {reason}")
    if written.num_left_out > _MAX_NAMED:
        note(f"left out of {name}: {num_photos(written.num_left_out)} in all")
    left_out = ""
    if written.num_left_out:
        left_out = f", {written.num_left_out} left out"
    return f"  {name}: {num_photos(written.num_photos)}{left_out} -> {folder}"

"""Format `yolo`: segmentation data of Ultralytics: data.yaml, images/ and labels/.

Own code, since it is a line of numbers for each region. supervision holds all photos' masks in
memory, and a reader finds them at a mean IoU of 0.97 (results/benchmark-label-formats.json).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from maskfree.files.atomic import replace_text
from maskfree.label.formats.json_stream import compact, text_file
from maskfree.label.formats.photo_files import PhotoFiles
from maskfree.label.formats.splits import is_validation
from maskfree.label.labeled import LabelClass, LabeledPhoto, without_background
from maskfree.results.regions import Region
from maskfree.results.rings import center_rings


def write_yolo(classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path) -> None:
    """Write a data set that `yolo segment train data=DIR/data.yaml` takes.

    Args:
        classes: Classes of the data set; the background is left out, others are counted from 0.
        photos: Photos with their labels.
        folder: Empty folder to fill.

    Raises:
        OSError: A file cannot be written.
    """
    objects = without_background(classes)
    numbers = {each.id: number for number, each in enumerate(objects)}

    splits = set()
    for photo in photos:
        split = "val" if is_validation(photo.labeled.name) else "train"
        splits.add(split)

        name = _readable(photo.name)
        photo.put(folder / "images" / split / f"{name}{photo.suffix}")
        # A photo without regions gets an empty file: it shows that nothing is there.
        with text_file(folder / "labels" / split / f"{name}.txt") as file:
            file.write(_lines(photo.labeled, numbers))

    replace_text(folder / "data.yaml", _data_yaml(objects, splits))


def _readable(name: str) -> str:
    """Rename folders called "images": Ultralytics finds the labels by the last one in a path."""
    return "/".join("images_" if part == "images" else part for part in name.split("/"))


def _lines(photo: LabeledPhoto, numbers: Mapping[int, int]) -> str:
    """A line for each connected part of each region."""
    lines = []
    for region in photo.regions:
        if region.class_id in numbers:
            lines += _region_lines(region, numbers[region.class_id])
    return "".join(lines)


def _region_lines(region: Region, number: int) -> list[str]:
    """Number of the class, then x and y of each point as fractions of the photo's sides."""
    height, width = region.size
    lines = []
    for ring in center_rings(region):
        values = (ring / (width, height)).reshape(-1).tolist()
        lines.append(str(number) + " %.6f" * len(values) % tuple(values) + "\n")
    return lines


def _data_yaml(objects: Sequence[LabelClass], splits: set[str]) -> str:
    """Text of data.yaml; without "path", folders are beside the file wherever it is moved."""
    train, validation = "train", "val"
    lines = []
    if len(splits) == 1:
        # Training needs both.
        [train] = [validation] = splits
        lines.append("# Too few photos for a validation part: the same ones are used for both.")

    lines += [f"train: images/{train}", f"val: images/{validation}", "names:"]
    # JSON strings are YAML strings, whatever letters a word has.
    lines += [f"  {number}: {compact(each.name)}" for number, each in enumerate(objects)]
    return "\n".join(lines) + "\n"

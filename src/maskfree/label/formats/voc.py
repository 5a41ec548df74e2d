"""Format `voc`: JPEGImages/, SegmentationClass/ and ImageSets/ of PASCAL VOC.

Own code: maps are what Pillow writes. datumaro takes three times as long and brings OpenCV, and
supervision writes XML of boxes and polygons without SegmentationClass/.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskfree.files.atomic import replace_text
from maskfree.label.classes import classes_text
from maskfree.label.formats.index_maps import in_order, palette_bytes, renumbered, write_map
from maskfree.label.formats.json_stream import text_file
from maskfree.label.formats.photo_files import PhotoFiles
from maskfree.label.formats.splits import is_validation
from maskfree.label.labeled import UNLABELED, LabelClass, without_background


def write_voc(classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path) -> None:
    """Write a data set in the layout of PASCAL VOC.

    Id 0 is the background, the words follow from 1 on, and 255 is unlabeled (VOC's "void").

    Args:
        classes: Classes of the data set.
        photos: Photos with their labels.
        folder: Empty folder to fill.

    Raises:
        ValueError: There are more classes than ids of 8 bits.
        OSError: A file cannot be written.
    """
    words = without_background(classes)
    background = [each for each in classes if each.is_background]
    if not background:
        background = [LabelClass(0, "background", (), (0, 0, 0))]

    numbered = in_order([*background, *words], first_id=0)
    colors = palette_bytes(numbered)
    if colors is None:
        raise ValueError(f"the format voc has ids of 8 bits: {len(words)} words, 254 are the most")

    ids = {each.name: each.id for each in numbered}
    lists = folder / "ImageSets" / "Segmentation"

    with (
        text_file(lists / "train.txt") as train,
        text_file(lists / "val.txt") as validation,
        text_file(lists / "trainval.txt") as both,
    ):
        for photo in photos:
            # A blank ends a name in datumaro's and others' lists.
            name = photo.name.replace(" ", "%20")
            # VOC's readers take no other suffix; decoders look at the content.
            photo.put(folder / "JPEGImages" / f"{name}.jpg")
            labels = renumbered(photo.labeled.labels, classes, ids)
            write_map(labels, colors, folder / "SegmentationClass" / f"{name}.png")

            part = validation if is_validation(photo.labeled.name) else train
            part.write(f"{name}\n")
            both.write(f"{name}\n")

    replace_text(folder / "labelmap.txt", _label_map(numbered, colors))
    replace_text(folder / "classes.txt", classes_text(numbered))


def _label_map(classes: Sequence[LabelClass], colors: bytes) -> str:
    """Text of labelmap.txt, by which CVAT and datumaro name the colors of the palette."""
    # Every color of the palette needs a name.
    red, green, blue = colors[3 * UNLABELED :][:3]
    unlabeled = LabelClass(UNLABELED, "unlabeled", (), (red, green, blue))

    lines = ["# label:color_rgb:parts:actions"]
    for each in [*classes, unlabeled]:
        # A colon ends a name, and a "#" at its start makes it a comment.
        name = each.name.replace(":", "%3A")
        if name.startswith("#"):
            name = name.replace("#", "%23", 1)
        lines.append(f"{name}:{','.join(map(str, each.color))}::")
    return "\n".join(lines) + "\n"

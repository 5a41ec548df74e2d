"""The formats in which a labeled data set is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maskfree.label.formats.coco import write_coco
from maskfree.label.formats.cvat import write_cvat
from maskfree.label.formats.folder import replaced_folder
from maskfree.label.formats.hugging_face import write_hugging_face
from maskfree.label.formats.label_studio import write_label_studio
from maskfree.label.formats.labelme import write_labelme
from maskfree.label.formats.masks import write_masks
from maskfree.label.formats.photo_files import Linking, PhotoFiles
from maskfree.label.formats.segmentation_folders import write_mmseg
from maskfree.label.formats.voc import write_voc
from maskfree.label.formats.yolo import write_yolo
from maskfree.label.labeled import LabelClass, LabeledPhoto

Writer = Callable[[Sequence[LabelClass], PhotoFiles, Path], None]

FORMATS: dict[str, Writer] = {
    "masks": write_masks,
    "coco": write_coco,
    "coco-polygons": partial(write_coco, as_polygons=True),
    "yolo": write_yolo,
    "voc": write_voc,
    "mmseg": write_mmseg,
    "ade": partial(write_mmseg, first_id=1),
    "huggingface": write_hugging_face,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "cvat-polygons": partial(write_cvat, as_polygons=True),
    "label-studio": write_label_studio,
    "label-studio-polygons": partial(write_label_studio, as_polygons=True),
}
"""Function that writes each format."""


@dataclass(frozen=True)
class Written:
    """What came into a written data set."""

    num_photos: int
    """Number of photos with their labels."""
    num_left_out: int
    """Number of photos whose file is gone, unreadable, or of another size than its labels."""
    reasons: tuple[str, ...]
    """Why photos were left out, a line for each of the first ten."""


def write_format(
    name: str,
    classes: Sequence[LabelClass],
    photos: Iterable[LabeledPhoto],
    out: Path,
    linking: Linking = "hard",
) -> Written:
    """Write a labeled data set in a format; the folder is whole or not there.

    Photos are read one by one, so memory does not grow with their number.

    Args:
        name: Name of the format, a key of `FORMATS`.
        classes: Classes of the data set.
        photos: Photos with their labels.
        out: Folder to write. One that maskfree wrote is replaced.
        linking: How photos come into the folder. "hard" links need no space and stay whole where
            the folder is moved, packed or the original is deleted; on another file system they
            become copies. "symbolic" links break when the originals move. With "copy", programs
            that change photos in place do not change the originals.

    Returns:
        Numbers of photos written and left out.

    Raises:
        ValueError: There is no such format, it cannot hold the classes, or an extra is missing.
        FileExistsError: The folder has files that maskfree did not write, or that were changed.
        OSError: A photo cannot be copied, no photo is there, or the folder cannot be written.
    """
    if name not in FORMATS:
        raise ValueError(f"there is no format {name!r}: {', '.join(FORMATS)} are there")

    files = PhotoFiles(photos, linking)
    with replaced_folder(out) as folder:
        FORMATS[name](classes, files, folder)
        # Such as of a disk that is not mounted: what was written before is kept.
        if files.num_left_out and not files.num_photos:
            raise FileNotFoundError(
                f"no photo of {files.num_left_out} is there: {files.reasons[0]}"
            )
    return Written(files.num_photos, files.num_left_out, tuple(files.reasons))

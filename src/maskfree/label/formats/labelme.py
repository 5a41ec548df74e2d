"""Format `labelme`: a JSON file beside each photo, and labels.txt.

Own code, since labelme itself needs Qt (200 MB) to write a file of a few fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskfree.files.atomic import replace_text
from maskfree.label.formats.json_stream import compact, text_file
from maskfree.label.formats.photo_files import PhotoFiles
from maskfree.label.labeled import LabelClass, without_background
from maskfree.results.exports import labelme_file


def write_labelme(classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path) -> None:
    """Write NAME.jpg and NAME.json; regions with holes are masks, all others polygons.

    Args:
        classes: Classes of the data set; the background is left out.
        photos: Photos with their labels.
        folder: Empty folder to fill.

    Raises:
        OSError: A file cannot be written.
    """
    objects = without_background(classes)
    ids = {each.id for each in objects}
    replace_text(folder / "labels.txt", "".join(f"{each.name}\n" for each in objects))

    for photo in photos:
        path = folder / f"{photo.name}{photo.suffix}"
        photo.put(path)

        regions = [region for region in photo.labeled.regions if region.class_id in ids]
        size = (photo.labeled.height, photo.labeled.width)
        with text_file(folder / f"{photo.name}.json") as file:
            file.write(compact(labelme_file(regions, path.name, size)) + "\n")

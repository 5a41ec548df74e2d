"""Format `labelme`: a JSON file beside each photo, and labels.txt.

Own code, since labelme itself needs Qt (200 MB) to write a file of a few fields.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from maskfree.files.atomic import replace_text
from maskfree.label.formats.json_stream import compact, text_file
from maskfree.label.formats.photo_files import PhotoFile, PhotoFiles
from maskfree.label.formats.rings import center_rings
from maskfree.label.labeled import LabelClass
from maskfree.results.regions import Region

# The first version of labelme with masks as shapes is 5.3.
_VERSION = "5.5.0"


def write_labelme(classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path) -> None:
    """Write NAME.jpg and NAME.json; regions with holes are masks, all others polygons.

    Args:
        classes: Classes of the data set; the background is left out.
        photos: Photos with their labels.
        folder: Empty folder to fill.

    Raises:
        OSError: A file cannot be written.
    """
    names = {each.id: each.name for each in classes if not each.is_background}
    replace_text(folder / "labels.txt", "".join(f"{name}\n" for name in names.values()))

    for photo in photos:
        photo.put(folder / f"{photo.name}{photo.suffix}")
        with text_file(folder / f"{photo.name}.json") as file:
            file.write(compact(_content(photo, names)) + "\n")


def _content(photo: PhotoFile, names: Mapping[int, str]) -> dict[str, Any]:
    """Content of a photo's file."""
    shapes = []
    for region in photo.labeled.regions:
        if region.class_id in names:
            shapes += _shapes(region, names[region.class_id])

    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{Path(photo.name).name}{photo.suffix}",
        "imageData": None,
        "imageHeight": photo.labeled.height,
        "imageWidth": photo.labeled.width,
    }


def _shapes(region: Region, name: str) -> list[dict[str, Any]]:
    """Shapes of a region: a mask if it has holes, else its polygons."""
    common = {"label": name, "group_id": None, "flags": {}, "description": _description(region)}

    if any(holes for _, holes in region.polygons()):
        left, top, right, bottom = region.box
        corners = [[left, top], [right - 1, bottom - 1]]
        shape = {"points": corners, "shape_type": "mask", "mask": _png_text(region)}
        return [common | shape]

    return [
        common | {"points": ring.tolist(), "shape_type": "polygon", "mask": None}
        for ring in center_rings(region)
    ]


def _description(region: Region) -> str:
    """What a person sees beside a shape: how sure its label is."""
    if region.confidence != region.confidence:
        return ""
    return f"confidence {region.confidence:.2f}"


def _png_text(region: Region) -> str:
    """The mask within its box as a PNG in letters."""
    buffer = io.BytesIO()
    Image.fromarray(region.crop).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()

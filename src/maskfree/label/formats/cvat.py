"""Formats `cvat` and `cvat-polygons`: annotations.xml of "CVAT for images 1.1" and images/.

Own code, a line for each region. cvat-sdk talks to a server and
writes no file; datumaro takes four times as long and brings OpenCV.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from maskfree.label.formats.json_stream import text_file
from maskfree.label.formats.photo_files import PhotoFiles
from maskfree.label.labeled import LabelClass, LabeledPhoto, without_background
from maskfree.label.store import runs_of
from maskfree.results.regions import Region
from maskfree.results.rings import simple_edge_rings


def write_cvat(
    classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path, as_polygons: bool = False
) -> None:
    """Write the labels, then a photo at a time.

    Args:
        classes: Classes of the data set; the background is left out.
        photos: Photos with their labels.
        folder: Empty folder to fill.
        as_polygons: Write each region as polygons, of few points that a person can move, whose
            holes are joined; otherwise as a mask, which is exact.

    Raises:
        OSError: A file cannot be written.
    """
    objects = without_background(classes)
    names = {each.id: each.name for each in objects}

    with text_file(folder / "annotations.xml") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        file.write("<version>1.1</version>\n")
        file.write(_labels_text(objects))

        for number, photo in enumerate(photos):
            file_name = f"{photo.name}{photo.suffix}"
            photo.put(folder / "images" / file_name)
            attributes = {
                "id": str(number),
                "name": file_name,
                "width": str(photo.labeled.width),
                "height": str(photo.labeled.height),
            }
            shapes = "".join(_shapes(photo.labeled, names, as_polygons))
            file.write(f"<image{_attributes(attributes)}>\n{shapes}</image>\n")
        file.write("</annotations>\n")


def _labels_text(objects: Sequence[LabelClass]) -> str:
    """Names and colors of the classes."""
    labels = []
    for each in objects:
        labels.append(
            f"<label><name>{escape(each.name)}</name><color>{each.hex_color}</color>"
            "<attributes></attributes></label>\n"
        )
    return f"<meta><task><labels>\n{''.join(labels)}</labels></task></meta>\n"


def _shapes(photo: LabeledPhoto, names: Mapping[int, str], as_polygons: bool) -> Iterator[str]:
    """Elements of a photo's regions, a line each."""
    for region in photo.regions:
        if region.class_id not in names:
            continue

        common = {
            "label": names[region.class_id],
            "source": "auto",
            "occluded": "0",
            "z_order": "0",
        }
        if not as_polygons:
            yield f"<mask{_attributes(common | _mask(region))}/>\n"
            continue

        for ring in simple_edge_rings(region):
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist())
            yield f"<polygon{_attributes(common | {'points': points})}/>\n"


def _attributes(values: Mapping[str, str]) -> str:
    """Attributes of an element, with a blank before each."""
    return "".join(f" {name}={quoteattr(value)}" for name, value in values.items())


def _mask(region: Region) -> dict[str, str]:
    """Box of a region, and lengths of the runs outside and inside it, row by row."""
    left, top, right, bottom = region.box
    return {
        "rle": ", ".join(map(str, runs_of(region.crop))),
        "left": str(left),
        "top": str(top),
        "width": str(right - left),
        "height": str(bottom - top),
    }

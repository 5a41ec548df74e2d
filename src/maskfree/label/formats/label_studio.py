"""Formats `label-studio` and `label-studio-polygons`: tasks.json with predictions, and config.xml.

Own code for the packed masks: label-studio-sdk takes longer for them alone than this format for all
(results/benchmark-label-formats.json), and brings 70 packages, among them OpenCV, pandas and NLTK.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool

from maskfree.files.atomic import replace_text
from maskfree.label.formats.json_stream import JsonArray, known_score, text_file
from maskfree.label.formats.photo_files import PhotoFile, PhotoFiles
from maskfree.label.labeled import LabelClass, without_background
from maskfree.label.store import runs_of
from maskfree.results.regions import Region
from maskfree.results.rings import simple_edge_rings

# Where Label Studio serves files below LOCAL_FILES_DOCUMENT_ROOT, here the folder of tasks.json.
_ADDRESS = "/data/local-files/?d="
# A mask is four bytes a pixel (red, green, blue, alpha), all 0 or 255.
_CHANNELS = 4
# Bits that a run's length may have: a shorter field is taken where it suffices.
_LENGTH_BITS = (3, 4, 8, 16)


def write_label_studio(
    classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path, as_polygons: bool = False
) -> None:
    """Write the labeling interface, then a task for each photo.

    Args:
        classes: Classes of the data set; the background is left out.
        photos: Photos with their labels.
        folder: Empty folder to fill.
        as_polygons: Write each region as polygons, of few points that a person can move, whose
            holes are joined; otherwise as a brush mask, which is exact.

    Raises:
        OSError: A file cannot be written.
    """
    objects = without_background(classes)
    names = {each.id: each.name for each in objects}
    replace_text(folder / "config.xml", _interface(objects, as_polygons))

    with text_file(folder / "tasks.json") as file:
        tasks = JsonArray(file)
        for photo in photos:
            place = f"images/{photo.name}{photo.suffix}"
            photo.put(folder / place)
            tasks.add(_task(photo, place, names, as_polygons))
        tasks.close()


def _interface(objects: Sequence[LabelClass], as_polygons: bool) -> str:
    """The project's labeling interface, which names the labels."""
    tag = "PolygonLabels" if as_polygons else "BrushLabels"
    labels = "".join(
        f"    <Label value={quoteattr(each.name)} background={quoteattr(each.hex_color)}/>\n"
        for each in objects
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <{tag} name="label" toName="image">\n{labels}  </{tag}>\n</View>\n'
    )


def _task(
    photo: PhotoFile, place: str, names: Mapping[int, str], as_polygons: bool
) -> dict[str, Any]:
    """A photo with its regions as one prediction."""
    regions = [each for each in photo.labeled.regions if each.class_id in names]
    results = []
    for region in regions:
        for value, kind in _values(region, as_polygons):
            results.append(
                {
                    "id": f"region{len(results) + 1}",
                    "type": kind,
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": photo.labeled.width,
                    "original_height": photo.labeled.height,
                    "image_rotation": 0,
                    "value": value | {kind: [names[region.class_id]]},
                }
                | known_score(region.confidence)
            )

    prediction = {"model_version": "maskfree", "result": results} | _mean_score(regions)
    return {"data": {"image": _ADDRESS + quote(place)}, "predictions": [prediction]}


def _mean_score(regions: Sequence[Region]) -> dict[str, float]:
    """Mean confidence over the pixels of all regions."""
    if not regions:
        return {}
    areas = [region.area_px for region in regions]
    return known_score(float(np.average([each.confidence for each in regions], weights=areas)))


def _values(region: Region, as_polygons: bool) -> list[tuple[dict[str, Any], str]]:
    """The shapes of a region with the name of their kind."""
    if not as_polygons:
        packed = list(packed_mask(region.mask))
        return [({"format": "rle", "rle": packed}, "brushlabels")]

    height, width = region.size
    shapes = []
    for ring in simple_edge_rings(region):
        # In percent of the photo's sides.
        points = np.round(ring * (100 / width, 100 / height), 4).tolist()
        shapes.append(({"points": points, "closed": True}, "polygonlabels"))
    return shapes


def packed_mask(mask: Bool[np.ndarray, "h w"]) -> bytes:
    """Pack a mask into Label Studio's run lengths.

    Args:
        mask: True where the brush has painted.

    Returns:
        32 bits of the number of bytes, 5 of the bits a byte, and 4 of the bits of each length
        field, all but the first less 1. Then runs: a bit 1, two bits that choose a field, the
        length less 1 in it, and the byte.

    Source: the format of @thi.ng/rle-pack, which Label Studio uses.
    """
    fields = "".join(f"{bits - 1:04b}" for bits in _LENGTH_BITS)
    parts = [f"{mask.size * _CHANNELS:032b}", f"{8 - 1:05b}", fields]

    longest = 2 ** _LENGTH_BITS[-1]
    for number, pixels in enumerate(runs_of(mask)):
        value = "11111111" if number % 2 else "00000000"
        left = pixels * _CHANNELS
        while left > 0:
            length = min(left, longest)
            parts.append(_run(length) + value)
            left -= length

    text = "".join(parts)
    padded = text + "0" * (-len(text) % 8)
    return int(padded, 2).to_bytes(len(padded) // 8, "big")


def _run(length: int) -> str:
    """Bits of a run's start: that it is one, its field, and its length less 1."""
    field = next(index for index, bits in enumerate(_LENGTH_BITS) if length <= 2**bits)
    return f"1{field:02b}{length - 1:0{_LENGTH_BITS[field]}b}"

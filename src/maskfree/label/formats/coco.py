"""Formats `coco` and `coco-polygons`: annotations/instances_default.json and images/.

Own code around pycocotools, which packs the RLE. supervision holds all photos' masks until it
writes, 7 MB a photo here, loses holes, and gives regions of a pixel no polygon, on which
pycocotools stops. datumaro's masks are exact, but its memory grows too, it takes over twice as
long, and it brings OpenCV and pins pandas and pyarrow (results/benchmark-label-formats.json).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskfree.config.extras import need
from maskfree.label.formats.json_stream import JsonArray, compact, known_score, text_file
from maskfree.label.formats.photo_files import PhotoFile, PhotoFiles
from maskfree.label.labeled import LabelClass, without_background
from maskfree.results.regions import Region
from maskfree.results.rings import edge_rings


def write_coco(
    classes: Sequence[LabelClass], photos: PhotoFiles, folder: Path, as_polygons: bool = False
) -> None:
    """Write all photos, then all annotations behind them.

    Args:
        classes: Classes of the data set; the background is left out, others are counted from 1.
        photos: Photos with their labels.
        folder: Empty folder to fill.
        as_polygons: Write each region as polygons, with a hole joined to its outer ring, since
            COCO knows no holes; otherwise as a mask of run lengths, which is exact.

    Raises:
        ValueError: The extra `label` is not installed.
        OSError: A file cannot be written.
    """
    if not as_polygons:
        need("the format coco", "label", modules=("pycocotools",))
    objects = without_background(classes)
    # From 1 on: 0 stands for no class, which datumaro takes literally.
    numbers = {each.id: number for number, each in enumerate(objects, 1)}
    path = folder / "annotations" / "instances_default.json"
    waiting = folder / "annotations.part"

    with text_file(path) as file:
        file.write(_head(objects))
        images = JsonArray(file)

        with text_file(waiting) as annotation_file:
            annotations = JsonArray(annotation_file)
            num_annotations = 0
            for image_id, photo in enumerate(photos, 1):
                images.add(_image(photo, image_id))
                photo.put(folder / "images" / f"{photo.name}{photo.suffix}")

                for region in photo.labeled.regions:
                    if region.class_id in numbers:
                        num_annotations += 1
                        keys = {
                            "id": num_annotations,
                            "image_id": image_id,
                            "category_id": numbers[region.class_id],
                        }
                        annotations.add(keys | _annotation(region, as_polygons))
            annotations.close()
        images.close()

        # The annotations stand behind the photos, whose number was not known.
        file.write(',\n"annotations":')
        with waiting.open(encoding="utf-8", newline="\n") as part:
            shutil.copyfileobj(part, file)
        file.write("}\n")
    waiting.unlink()


def _head(objects: Sequence[LabelClass]) -> str:
    """Text of the file up to its photos."""
    categories = [
        {"id": number, "name": each.name, "supercategory": "", "color": list(each.color)}
        for number, each in enumerate(objects, 1)
    ]
    info = {"description": "Labeled by maskfree", "version": "1.0"}
    return f'{{"info":{compact(info)},\n"categories":{compact(categories)},\n"images":'


def _image(photo: PhotoFile, image_id: int) -> dict[str, Any]:
    """Entry of a photo."""
    return {
        "id": image_id,
        "file_name": f"{photo.name}{photo.suffix}",
        "width": photo.labeled.width,
        "height": photo.labeled.height,
    }


def _annotation(region: Region, as_polygons: bool) -> dict[str, Any]:
    """Entry of a region, without its ids."""
    left, top, right, bottom = region.box
    segmentation: Any
    if as_polygons:
        segmentation = [ring.reshape(-1).tolist() for ring in edge_rings(region)]
    else:
        segmentation = _run_lengths(region)

    return {
        "bbox": [left, top, right - left, bottom - top],
        "area": region.area_px,
        "iscrowd": 0,
        "segmentation": segmentation,
    } | known_score(region.confidence)


def _run_lengths(region: Region) -> dict[str, Any]:
    """Mask of a region in COCO's packed run lengths, which go down the columns."""
    from pycocotools import mask as coco_mask

    packed: Any = coco_mask.encode(np.asfortranarray(region.mask, np.uint8))
    return {"size": list(region.size), "counts": packed["counts"].decode()}

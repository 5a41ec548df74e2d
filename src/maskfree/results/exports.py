"""Results in the form of other libraries: supervision, COCO, labelme and FiftyOne."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from maskfree.results.regions import Region
from maskfree.results.rings import simple_center_ring

# The first version of labelme with masks as shapes is 5.3.
_LABELME_VERSION = "5.3.0"


def supervision_detections(regions: Sequence[Region], size: tuple[int, int]) -> Any:
    """Convert regions to `supervision.Detections`.

    Args:
        regions: Regions of a photo.
        size: Height and width of the photo in pixels.

    Returns:
        Detections with boxes, masks, class ids and names, and confidences.

    Raises:
        ValueError: supervision is not installed.
    """
    _need("supervision")
    from supervision import Detections

    if not regions:
        return Detections.empty()
    return Detections(
        xyxy=np.array([region.box for region in regions], np.float32).reshape(-1, 4),
        mask=np.stack([region.mask for region in regions]).reshape(-1, *size),
        class_id=np.array([region.class_id for region in regions]),
        confidence=np.array([region.confidence for region in regions], np.float32),
        data={"class_name": np.array([region.name for region in regions])},
    )


def coco_dataset(
    regions: Sequence[Region], names: Sequence[str], file_name: str, size: tuple[int, int]
) -> dict[str, Any]:
    """Convert regions to a COCO data set of one photo.

    Masks are run lengths, which hold holes and are exact.

    Args:
        regions: Regions of the photo.
        names: Name of each id; the ids of COCO's categories are one higher.
        file_name: Name of the photo's file.
        size: Height and width of the photo in pixels.

    Returns:
        Content of an annotation file, as plain values.
    """
    annotations = []
    for number, region in enumerate(regions, 1):
        left, top, right, bottom = region.box
        annotation = {
            "id": number,
            "image_id": 1,
            "category_id": region.class_id + 1,
            "bbox": [left, top, right - left, bottom - top],
            "area": region.area_px,
            "iscrowd": 0,
            "segmentation": {"size": list(size), "counts": _run_lengths(region.mask)},
        }
        if _is_known(region.confidence):
            annotation["score"] = region.confidence
        annotations.append(annotation)

    return {
        "images": [{"id": 1, "file_name": file_name, "height": size[0], "width": size[1]}],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }


def labelme_file(
    regions: Sequence[Region], file_name: str, size: tuple[int, int]
) -> dict[str, Any]:
    """Convert regions to the content of a labelme file.

    Args:
        regions: Connected regions of the photo; those with holes become masks, which labelme's
            polygons do not have, all others polygons.
        file_name: Name of the photo's file.
        size: Height and width of the photo in pixels.

    Returns:
        Content of the JSON file beside the photo, as plain values.
    """
    return {
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": [labelme_shape(region) for region in regions],
        "imagePath": file_name,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def fiftyone_detections(regions: Sequence[Region], size: tuple[int, int]) -> Any:
    """Convert regions to `fiftyone.Detections`.

    Args:
        regions: Regions of a photo.
        size: Height and width of the photo in pixels.

    Returns:
        Detections with labels, boxes, masks and confidences.

    Raises:
        ValueError: fiftyone is not installed.
    """
    _need("fiftyone")
    from fiftyone import Detection, Detections

    height, width = size
    detections = []
    for region in regions:
        left, top, right, bottom = region.box
        # FiftyOne's boxes are fractions of the photo.
        box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        detection = Detection(label=region.name, bounding_box=box, mask=region.crop)
        if _is_known(region.confidence):
            detection.confidence = region.confidence
        detections.append(detection)
    return Detections(detections=detections)


def labelme_shape(region: Region) -> dict[str, Any]:
    """Convert a connected region to a shape of labelme.

    Args:
        region: The region; one with holes becomes a mask, which labelme's polygons do not have.

    Returns:
        Entry of "shapes" in labelme's file. Polygons run through the border pixels, which labelme
        fills, with few enough points to move them.
    """
    description = ""
    if _is_known(region.confidence):
        description = f"confidence {region.confidence:.2f}"

    shape = {"label": region.name, "group_id": None, "flags": {}, "description": description}
    ((_, holes),) = region.polygons()
    if not holes:
        ring = simple_center_ring(region)
        return shape | {"points": ring.tolist(), "shape_type": "polygon", "mask": None}

    # The last row and column of a mask belong to its box.
    left, top, right, bottom = region.box
    buffer = io.BytesIO()
    Image.fromarray(region.crop).save(buffer, "PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    corners = [[left, top], [right - 1, bottom - 1]]
    return shape | {"points": corners, "shape_type": "mask", "mask": mask}


def _run_lengths(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """COCO's run lengths: column by column, starting with pixels that are not in the mask."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    borders = np.concatenate([[0], changes, [pixels.size]])
    lengths = np.diff(borders).tolist()
    if pixels[0]:
        return [0, *lengths]
    return lengths


def _is_known(confidence: float) -> bool:
    """Whether a region has a confidence, which is NaN otherwise."""
    return confidence == confidence


def _need(package: str) -> None:
    """Check that a package is installed that belongs to no extra, since it is large."""
    if find_spec(package) is None:
        raise ValueError(f"to_{package} needs {package}: pip install {package}")

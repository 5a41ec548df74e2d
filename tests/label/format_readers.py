"""Read a written data set with the reader of its format: masks by photo and by name of the class.

A photo's key is its file's name below the folder of photos, without suffix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

Masks = dict[str, dict[str, np.ndarray]]
HEAVY = "a heavy package: CONTRIBUTING says how to run the readers' tests"


def pycocotools_coco(folder: Path) -> Masks:
    from pycocotools.coco import COCO

    coco = COCO(folder / "annotations" / "instances_default.json")
    names = {each["id"]: each["name"] for each in coco.loadCats(coco.getCatIds())}

    found: Masks = {}
    for image in coco.loadImgs(coco.getImgIds()):
        assert (folder / "images" / image["file_name"]).is_file()
        masks = found.setdefault(stem(image["file_name"]), {})
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.sum() == annotation["area"]
            add(masks, names[annotation["category_id"]], mask)
    return found


def supervision_coco(folder: Path) -> Masks:
    sv = pytest.importorskip("supervision", reason=HEAVY)
    return from_supervision(
        sv.DetectionDataset.from_coco(
            images_directory_path=str(folder / "images"),
            annotations_path=str(folder / "annotations" / "instances_default.json"),
            force_masks=True,
        ),
        folder / "images",
    )


def supervision_yolo(folder: Path) -> Masks:
    sv = pytest.importorskip("supervision", reason=HEAVY)
    found: Masks = {}
    # It reads no subfolders: each one is read as a data set.
    for images in [path for path in (folder / "images").rglob("*") if path.is_dir()]:
        place = images.relative_to(folder / "images")
        if not any(path.is_file() for path in images.iterdir()):
            continue
        part = sv.DetectionDataset.from_yolo(
            images_directory_path=str(images),
            annotations_directory_path=str(folder / "labels" / place),
            data_yaml_path=str(folder / "data.yaml"),
            force_masks=True,
        )
        found |= from_supervision(part, folder / "images" / place.parts[0])
    return found


def ultralytics_yolo(folder: Path) -> Masks:
    pytest.importorskip("ultralytics", reason=HEAVY)
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset, polygons2masks

    data = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    found: Masks = {}
    for split in ("train", "val"):
        part = YOLODataset(img_path=data[split], data=data, task="segment", augment=False)
        for label in part.labels:
            masks = found.setdefault(stem(relative(label["im_file"], data[split])), {})
            height, width = label["shape"]
            scale = np.array([width, height], np.float32)
            for number, segment in zip(label["cls"][:, 0], label["segments"], strict=True):
                mask = polygons2masks((height, width), [segment * scale], color=1)[0]
                add(masks, data["names"][int(number)], mask.astype(bool))
    return found


def fiftyone_coco(folder: Path) -> Masks:
    pytest.importorskip("fiftyone", reason=HEAVY)
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    importer = COCODetectionDatasetImporter(
        data_path=str(folder / "images"),
        labels_path=str(folder / "annotations" / "instances_default.json"),
        label_types="segmentations",
        include_id=True,
    )
    importer.setup()
    found: Masks = {}
    for path, metadata, labels in importer:
        masks = found.setdefault(stem(relative(path, folder / "images")), {})
        detections = (
            labels["segmentations"].detections if labels and "segmentations" in labels else []
        )
        for detection in detections:
            # Drawn by hand, since its `to_segmentation` loses masks of a single pixel.
            size = np.array([metadata.width, metadata.height])
            left, top = np.rint(detection.bounding_box[:2] * size).astype(int)
            rows, columns = detection.mask.shape
            mask = np.zeros((metadata.height, metadata.width), bool)
            mask[top : top + rows, left : left + columns] = detection.mask
            add(masks, detection.label, mask)
    return found


def datumaro_coco(folder: Path) -> Masks:
    return from_datumaro(folder, "coco_instances")


def datumaro_cvat(folder: Path) -> Masks:
    return from_datumaro(folder, "cvat")


def datumaro_voc(folder: Path) -> Masks:
    return from_datumaro(folder, "voc_segmentation")


def labelme_files(folder: Path) -> Masks:
    pytest.importorskip("labelme", reason=HEAVY)
    from labelme._label_file import LabelFile
    from labelme.utils import img_data_to_pil, shapes_to_label

    names = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    numbers = {name: number for number, name in enumerate(names, 1)}
    found: Masks = {}
    for path in sorted(folder.rglob("*.json")):
        read = LabelFile(str(path))
        size = img_data_to_pil(read.image_data).size[::-1]
        labels, _ = shapes_to_label(size, read.shapes, numbers)
        masks = found.setdefault(stem(relative(path, folder)), {})
        for number in np.unique(labels[labels > 0]):
            add(masks, names[number - 1], labels == number)
    return found


def label_studio_brush(folder: Path) -> Masks:
    pytest.importorskip("label_studio_sdk", reason=HEAVY)
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((folder / "config.xml").read_text(encoding="utf-8"))
    found: Masks = {}
    for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8")):
        masks = found.setdefault(task_name(task, folder), {})
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction)
            for result in prediction["result"]:
                size = result["original_height"], result["original_width"], 4
                rle = decode_rle(result["value"]["rle"]).reshape(size)
                [name] = result["value"]["brushlabels"]
                add(masks, name, rle[:, :, 3] > 0)
    return found


def label_studio_polygons(folder: Path) -> Masks:
    """By the documented rule (percent of the sides), since the SDK draws no polygons."""
    from pycocotools import mask as coco_mask

    found: Masks = {}
    for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8")):
        masks = found.setdefault(task_name(task, folder), {})
        for result in task["predictions"][0]["result"]:
            width, height = result["original_width"], result["original_height"]
            points = np.array(result["value"]["points"]) * (width / 100, height / 100)
            packed: Any = coco_mask.frPyObjects([points.reshape(-1).tolist()], height, width)
            [name] = result["value"]["polygonlabels"]
            add(masks, name, coco_mask.decode(packed)[:, :, 0] > 0)
    return found


def from_supervision(data: Any, images: Path) -> Masks:
    found: Masks = {}
    for path, _, detections in data:
        masks = found.setdefault(stem(relative(path, images)), {})
        if detections.mask is None:
            continue
        for number, mask in zip(detections.class_id, detections.mask, strict=True):
            add(masks, data.classes[number], np.asarray(mask, bool))
    return found


def from_datumaro(folder: Path, kind: str) -> Masks:
    datumaro = pytest.importorskip("datumaro", reason=HEAVY)
    from datumaro.components.annotation import Mask, Polygon
    from pycocotools import mask as coco_mask

    data = datumaro.Dataset.import_from(str(folder), kind)
    names = [each.name for each in data.categories()[datumaro.AnnotationType.label]]
    found: Masks = {}
    for item in data:
        masks = found.setdefault(item.id, {})
        height, width = item.media.size
        for each in item.annotations:
            if isinstance(each, Mask):
                add(masks, names[each.label], np.asarray(each.image, bool))
            elif isinstance(each, Polygon):
                packed: Any = coco_mask.frPyObjects([each.points], height, width)
                add(masks, names[each.label], coco_mask.decode(packed)[:, :, 0] > 0)
    return found


def add(masks: dict[str, np.ndarray], name: str, mask: np.ndarray) -> None:
    """Join a region to the mask of its class."""
    assert mask.any()
    masks[name] = masks.get(name, np.zeros(mask.shape, bool)) | mask


def task_name(task: dict[str, Any], folder: Path) -> str:
    """Name of the photo that a task of Label Studio shows."""
    address = task["data"]["image"]
    assert address.startswith("/data/local-files/?d=")
    place = unquote(address.removeprefix("/data/local-files/?d="))
    assert (folder / place).is_file()
    return stem(place.removeprefix("images/"))


def stem(file_name: str) -> str:
    """A relative path without suffix."""
    return str(Path(file_name).with_suffix(""))


def relative(path: str | Path, folder: str | Path) -> str:
    return str(Path(path).relative_to(folder))


def photo_keys(folder: Path) -> Iterator[str]:
    """Keys of the photos below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield stem(relative(path, folder))

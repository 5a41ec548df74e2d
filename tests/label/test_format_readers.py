"""Each format is read back by its own reader, and says exactly what was written.

Readers that are heavy packages are tested where they are installed: CONTRIBUTING says how.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from label import format_readers as readers
from label.labeled_photos import CLASSES, data_set, object_masks
from maskfree.label.formats.registry import write_format
from maskfree.label.labeled import LabeledPhoto

# Packages of others warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore")


def as_named(photo: LabeledPhoto) -> str:
    return photo.name


def of_voc(photo: LabeledPhoto) -> str:
    return photo.name.replace(" ", "%20")


def of_yolo(photo: LabeledPhoto) -> str:
    return photo.name.replace("images/", "images_/")


# datumaro cannot read a colon in labelmap.txt.
VOC_NAMES = {"été: 猫 & <b>": "été%3A 猫 & <b>"}

# Polygons that a person corrects have fewer points than the border has pixels.
SIMPLIFIED = ("labelme", "cvat-polygons", "label-studio-polygons")

CASES = [
    ("coco", readers.pycocotools_coco, as_named),
    ("coco-polygons", readers.pycocotools_coco, as_named),
    ("coco", readers.supervision_coco, as_named),
    ("coco", readers.fiftyone_coco, as_named),
    ("coco-polygons", readers.fiftyone_coco, as_named),
    ("coco", readers.datumaro_coco, as_named),
    ("yolo", readers.ultralytics_yolo, of_yolo),
    ("yolo", readers.supervision_yolo, of_yolo),
    ("voc", readers.datumaro_voc, of_voc),
    ("labelme", readers.labelme_files, as_named),
    ("cvat", readers.datumaro_cvat, as_named),
    ("cvat-polygons", readers.datumaro_cvat, as_named),
    ("label-studio", readers.label_studio_brush, as_named),
    ("label-studio-polygons", readers.label_studio_polygons, as_named),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[LabeledPhoto]:
    return data_set(tmp_path_factory.mktemp("photos"))


@pytest.mark.parametrize(
    ("name", "read", "key"), CASES, ids=[f"{case[0]}-{case[1].__name__}" for case in CASES]
)
def test_a_reader_finds_exactly_the_labels(
    tmp_path: Path,
    photos: list[LabeledPhoto],
    name: str,
    read: Callable[[Path], readers.Masks],
    key: Callable[[LabeledPhoto], str],
):
    written = write_format(name, CLASSES, photos, tmp_path / "out")
    assert (written.num_photos, written.num_left_out) == (len(photos), 0)

    found = read(tmp_path / "out")
    assert set(found) == {key(photo) for photo in photos}
    for photo in photos:
        masks = found[key(photo)]
        expected = object_masks(photo)
        if read is readers.datumaro_voc:
            masks = {name: masks[name] for name in masks.keys() - {"background", "unlabeled"}}
            expected = {VOC_NAMES.get(each, each): mask for each, mask in expected.items()}

        assert set(masks) == set(expected), photo.name
        for each, mask in expected.items():
            if name in SIMPLIFIED and mask.sum() > 100:
                assert iou(masks[each], mask) >= 0.98, f"{photo.name}: {each}"
            elif name not in SIMPLIFIED:
                np.testing.assert_array_equal(masks[each], mask, err_msg=f"{photo.name}: {each}")


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()

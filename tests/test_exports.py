from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from maskfree.results import exports
from maskfree.results.segmentation import Segmentation

WORDS = ("sky", "tree", "bus")


@pytest.fixture
def result() -> Segmentation:
    """20 x 30 pixels of sky, with a tree around a hole of sky, two buses and some background."""
    labels = np.zeros((20, 30), np.uint8)
    labels[4:14, 5:15] = 1
    labels[7:9, 8:11] = 0
    labels[15:18, 2:6] = labels[3:6, 20:28] = 2
    labels[19] = 3
    confidence = np.linspace(0, 1, labels.size).reshape(labels.shape).astype(np.float16)
    return Segmentation(
        labels=labels,
        words=WORDS,
        scores=np.full(labels.shape, 0.5, np.float16),
        confidence=confidence,
        image=np.zeros((*labels.shape, 3), np.uint8),
        record={
            "words": [[word] for word in WORDS],
            "background": {"rule": "auto", "id": 3},
            "photo": {"name": "street.jpg", "width": 30, "height": 20},
        },
    )


def masks_of(result: Segmentation) -> list[tuple[str, np.ndarray]]:
    """Name and mask of each connected region but the background."""
    return [(region.name, region.mask) for region in result.regions() if region.class_id < 3]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_cocos_own_reader_finds_the_masks(result: Segmentation, tmp_path: Path):
    (tmp_path / "coco.json").write_text(json.dumps(result.to_coco()))
    read = COCO(str(tmp_path / "coco.json"))
    assert read.loadImgs(1)[0]["file_name"] == "street.jpg"
    names = {category["id"]: category["name"] for category in read.loadCats(read.getCatIds())}
    assert list(names.values()) == list(WORDS)

    annotations = read.loadAnns(read.getAnnIds())
    expected = masks_of(result)
    assert len(annotations) == len(expected) == 5
    for annotation, (name, mask) in zip(annotations, expected, strict=True):
        assert names[annotation["category_id"]] == name
        assert (read.annToMask(annotation) == mask).all()
        packed = read.annToRLE(annotation)
        assert annotation["area"] == coco_mask.area(packed) == mask.sum()
        assert annotation["bbox"] == coco_mask.toBbox(packed).tolist()
        assert annotation["score"] == pytest.approx(result.confidence[mask].mean(dtype=float))


def test_run_lengths_of_a_mask_that_starts_inside():
    mask = np.array([[True, False, False], [True, True, False]])
    assert exports._run_lengths(mask) == [0, 2, 1, 1, 2]
    assert exports._run_lengths(~mask) == [2, 1, 1, 2]


def test_labelme_has_polygons_and_masks_where_there_are_holes(result: Segmentation):
    content = json.loads(json.dumps(result.to_labelme()))
    assert content["imagePath"] == "street.jpg"
    assert (content["imageHeight"], content["imageWidth"]) == (20, 30)

    kinds = set()
    for shape, (name, mask) in zip(content["shapes"], masks_of(result), strict=True):
        assert shape["label"] == name
        kinds.add(shape["shape_type"])
        points = np.array(shape["points"])
        if shape["shape_type"] == "polygon":
            # As labelme does: the outline is filled too.
            picture = Image.new("1", mask.shape[::-1])
            corners = [tuple(point) for point in points.tolist()]
            ImageDraw.Draw(picture).polygon(corners, fill=1, outline=1)
            drawn = np.asarray(picture)
        else:
            # As labelme does: both corners belong to the box.
            (left, top), (right, bottom) = points
            drawn = np.zeros(mask.shape, bool)
            crop = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
            drawn[top : bottom + 1, left : right + 1] = np.asarray(crop)
        assert (drawn == mask).all()
    assert kinds == {"polygon", "mask"}


def test_small_regions_are_left_out(result: Segmentation):
    assert len(result.to_coco(min_area_px=20)["annotations"]) == 3
    assert len(result.to_labelme(min_area_px=20)["shapes"]) == 3


class Fields(SimpleNamespace):
    """What a constructor was given."""

    @classmethod
    def empty(cls) -> Fields:
        return cls(xyxy=np.zeros((0, 4)))


def test_what_supervision_gets(result: Segmentation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exports, "_need", lambda package: None)
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=Fields))
    found = result.to_supervision()
    expected = masks_of(result)
    assert found.data["class_name"].tolist() == [name for name, _ in expected]
    assert [WORDS[i] for i in found.class_id] == [name for name, _ in expected]
    assert (found.mask == np.stack([mask for _, mask in expected])).all()
    assert found.xyxy.shape == (5, 4) and found.confidence.shape == (5,)
    # Its boxes are left, top, right, bottom.
    boxes = {tuple(box) for box in found.xyxy.tolist()}
    assert (20, 3, 28, 6) in boxes
    assert len(result.abstained(1).where(min_area=1).to_supervision().xyxy) == 0


def test_what_fiftyone_gets(result: Segmentation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exports, "_need", lambda package: None)
    monkeypatch.setitem(
        sys.modules, "fiftyone", SimpleNamespace(Detection=Fields, Detections=Fields)
    )
    found = result.to_fiftyone().detections
    assert [each.label for each in found] == [name for name, _ in masks_of(result)]
    for each, (_, mask) in zip(found, masks_of(result), strict=True):
        left, top, width, height = each.bounding_box
        x, y = round(left * 30), round(top * 20)
        box = mask[y : y + round(height * 20), x : x + round(width * 30)]
        assert (each.mask == box).all() and box.sum() == mask.sum()


@pytest.mark.parametrize("package", ["supervision", "fiftyone"])
def test_a_missing_package_is_named(
    result: Segmentation, package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"to_{package} needs {package}: pip install {package}"):
        getattr(result, f"to_{package}")()

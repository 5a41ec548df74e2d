"""A coco-mini and a CamVid of a few photos."""

import json

import numpy as np
import pytest
from PIL import Image

from maskfree.data.benchmarks.catalog import benchmark


@pytest.fixture
def data(tmp_path, photo):
    """A coco-mini of two photos and a CamVid of two training photos and one for validation."""
    root = tmp_path / "data"
    (root / "coco-mini" / "images").mkdir(parents=True)
    for i in (1, 2):
        photo((64, 48)).save(root / "coco-mini" / "images" / f"{i}.jpg")
    square = [[0, 0, 32, 0, 32, 24, 0, 24]]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (1, 2)],
        "categories": [
            {"id": i, "name": name} for i, name in enumerate(benchmark("coco-mini-80").words())
        ],
        "annotations": [
            {"image_id": i, "category_id": 0, "area": 768, "segmentation": square} for i in (1, 2)
        ],
    }
    (root / "coco-mini" / "instances.json").write_text(json.dumps(content))
    for part, names in (("train", "ab"), ("val", "c")):
        for folder in ("images", "labels"):
            (root / "camvid" / part / folder).mkdir(parents=True)
        for name in names:
            photo((64, 48)).save(root / "camvid" / part / "images" / f"{name}.jpg")
            labels = np.zeros((48, 64), np.uint8)
            labels[:, 20:] = 3
            Image.fromarray(labels).save(root / "camvid" / part / "labels" / f"{name}.png")
    return root


@pytest.fixture
def trained(monkeypatch):
    """The names of the runs that were trained, in order."""
    from studies import training

    names = []

    def counted(one, *arguments, **keywords):
        names.append(one.name)
        return fit(one, *arguments, **keywords)

    fit = training.fit
    monkeypatch.setattr(training, "fit", counted)
    return names

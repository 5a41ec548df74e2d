"""`datasets` reads the folder of the format `huggingface`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from label.format_readers import HEAVY
from label.labeled_photos import CLASSES, data_set
from maskfree.label.formats.registry import write_format
from maskfree.label.formats.splits import is_validation

pytestmark = pytest.mark.filterwarnings("ignore")


def test_datasets_gives_photos_with_their_label_maps(tmp_path: Path):
    datasets = pytest.importorskip("datasets", reason=HEAVY)
    photos = data_set(tmp_path / "photos")
    write_format("huggingface", CLASSES, photos, tmp_path / "out")

    read = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")
    )
    names = json.loads((tmp_path / "out" / "id2label.json").read_text(encoding="utf-8"))
    rows = {row["name"]: (split, row) for split, rows in read.items() for row in rows}
    assert len(rows) == len(photos)

    for photo in photos:
        split, row = rows[photo.name]
        assert split == ("validation" if is_validation(photo.name) else "train")
        assert row["image"].size == (photo.width, photo.height)
        labels = np.asarray(row["label"])
        for number, name in names.items():
            [wanted] = [each.id for each in CLASSES if each.name == name]
            np.testing.assert_array_equal(labels == int(number), photo.labels == wanted)

"""`maskfree evaluate regions`: whole runs, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from maskfree.cli.evaluate_regions import regions
from maskfree.regions.region_maps import SegmentConfig


def halves(height, width):
    numbers = np.zeros((height, width), np.uint8)
    numbers[:, width // 3 :] = 1
    return np.array([[220, 60, 40], [30, 90, 200]], np.uint8)[numbers], numbers + 1


@pytest.fixture
def bsds(tmp_path):
    """Two photos as BSDS500 has them; two people drew the same on each."""
    savemat = pytest.importorskip("scipy.io").savemat
    for name in ("images", "groundTruth"):
        (tmp_path / "bsds" / name).mkdir(parents=True)
    for stem, height in (("1", 104), ("2", 90)):  # large enough for a tolerance of a pixel
        photo, numbers = halves(height, 140)
        Image.fromarray(photo).save(tmp_path / "bsds" / "images" / f"{stem}.jpg", quality=95)
        drawn = np.zeros(numbers.shape, np.uint8)
        drawn[:, 140 // 3 - 1] = 1
        people = np.empty((1, 2), object)
        for person in range(2):
            people[0, person] = {"Segmentation": numbers.astype(np.uint16), "Boundaries": drawn}
        savemat(tmp_path / "bsds" / "groundTruth" / f"{stem}.mat", {"groundTruth": people})
    return tmp_path / "bsds"


def test_regions_are_measured_for_every_kind(bsds, tmp_path, capsys):
    assert regions(bsds, every_kind=True, results=tmp_path / "results") == 0
    assert "felzenszwalb" in capsys.readouterr().out
    kinds = ("contours", "slic", "felzenszwalb")
    found = {
        kind: json.loads((tmp_path / "results" / f"segments-{kind}.json").read_text())
        for kind in kinds
    }
    contours = found["contours"]
    assert contours["swept"]["boundary_ods"] > 0.95 and contours["swept"]["covering_ods"] > 0.9
    assert found["slic"]["maps"]["boundary_ods"] < contours["maps"]["boundary_ods"]
    assert contours["num_photos"] == 2
    assert contours["command"] == "maskfree evaluate regions bsds500 --kind contours"
    assert str(tmp_path) not in json.dumps(found)


def test_some_of_the_photos(bsds, tmp_path):
    regions(bsds, SegmentConfig(max_regions=9), photos=1, results=tmp_path)
    content = json.loads((tmp_path / "segments-contours.json").read_text())
    assert content["num_photos"] == 1
    assert (
        content["command"]
        == "maskfree evaluate regions bsds500 --kind contours --max-regions 9 --photos 1"
    )


def test_a_folder_that_is_not_bsds500_is_refused(bsds, tmp_path):
    with pytest.raises(FileNotFoundError, match="BSDS500 has images"):
        regions(tmp_path, results=tmp_path)
    with pytest.raises(ValueError, match="at least 1 photo"):
        regions(bsds, photos=0, results=tmp_path)
    (bsds / "groundTruth" / "2.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"no human segmentations .*2\.mat"):
        regions(bsds, results=tmp_path)

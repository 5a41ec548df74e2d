"""`maskfree prepare segments` and `maskfree evaluate-segments`: whole runs, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from maskfree.cli.evaluate_segments import evaluate_segments
from maskfree.cli.prepare_segments import segments
from maskfree.data.cache.region_maps import SegmentMaps
from maskfree.regions.region_maps import SegmentConfig


def halves(height=40, width=62):
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


@pytest.mark.parametrize("kind", ["contours", "slic", "felzenszwalb"])
def test_a_folder_of_photos_becomes_maps(tmp_path, capsys, kind):
    (tmp_path / "p").mkdir()
    photo, _ = halves()
    Image.fromarray(photo).save(tmp_path / "p" / "a.png")
    Image.fromarray(photo).convert("L").save(tmp_path / "p" / "gray.jpg")
    config = SegmentConfig(kind=kind, most=5)
    assert segments((str(tmp_path / "p"),), tmp_path / "out", config, workers=1) == 0
    assert "2 photos: 2 maps made, 0 were there" in capsys.readouterr().out
    assert 1 <= SegmentMaps(tmp_path / "out").of("p/a.png", (40, 62)).max() < 5
    record = json.loads((tmp_path / "out" / "segments.json").read_text())
    assert record["settings"] == asdict(config)
    assert segments((str(tmp_path / "p"),), tmp_path / "out", config, workers=1) == 0
    assert "0 maps made, 2 were there" in capsys.readouterr().out


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1 process"):
        segments((str(tmp_path),), tmp_path / "out", workers=0)
    with pytest.raises(FileNotFoundError, match="holds no photo"):
        segments((str(tmp_path),), tmp_path / "out")
    with pytest.raises(ValueError, match="no photos were given"):
        segments((), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_regions_are_measured_for_every_kind(bsds, tmp_path, capsys):
    assert evaluate_segments(bsds, every_kind=True, results=tmp_path / "results") == 0
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
    assert contours["command"] == "maskfree evaluate-segments bsds500 --kind contours"
    assert str(tmp_path) not in json.dumps(found)


def test_some_of_the_photos(bsds, tmp_path):
    evaluate_segments(bsds, SegmentConfig(most=9), photos=1, results=tmp_path)
    content = json.loads((tmp_path / "segments-contours.json").read_text())
    assert content["num_photos"] == 1
    assert (
        content["command"]
        == "maskfree evaluate-segments bsds500 --kind contours --most 9 --photos 1"
    )


def test_a_folder_that_is_not_bsds500_is_refused(bsds, tmp_path):
    with pytest.raises(FileNotFoundError, match="BSDS500 has images"):
        evaluate_segments(tmp_path, results=tmp_path)
    with pytest.raises(ValueError, match="at least 1 photo"):
        evaluate_segments(bsds, photos=0, results=tmp_path)
    (bsds / "groundTruth" / "2.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"no human segmentations .*2\.mat"):
        evaluate_segments(bsds, results=tmp_path)

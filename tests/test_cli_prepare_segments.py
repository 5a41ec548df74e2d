"""`maskfree prepare segments`: whole runs, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from maskfree.cli.prepare_segments import segments
from maskfree.data.cache.region_maps import SegmentMaps
from maskfree.regions.region_maps import SegmentConfig


def halves(height=40, width=62):
    numbers = np.zeros((height, width), np.uint8)
    numbers[:, width // 3 :] = 1
    return np.array([[220, 60, 40], [30, 90, 200]], np.uint8)[numbers], numbers + 1


@pytest.mark.parametrize("kind", ["contours", "slic", "felzenszwalb"])
def test_a_folder_of_photos_becomes_maps(tmp_path, capsys, kind):
    (tmp_path / "p").mkdir()
    photo, _ = halves()
    Image.fromarray(photo).save(tmp_path / "p" / "a.png")
    Image.fromarray(photo).convert("L").save(tmp_path / "p" / "gray.jpg")
    config = SegmentConfig(kind=kind, max_regions=5)
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

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree.hub.loading import load
from maskfree.inference.calibration import Calibration


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path):
    """Write a copy of the tiny model with this calibration, and load it."""

    def written(calibration: object):
        folder = tmp_path / "model"
        shutil.copytree(tiny_checkpoint, folder)
        run = json.loads((folder / "run.json").read_text()) | {"calibration": calibration}
        (folder / "run.json").write_text(json.dumps(run))
        return load(folder, device="cpu")

    return written


def test_the_temperature_comes_with_the_model(checkpoint, tiny_checkpoint: Path, photo):
    usual = load(tiny_checkpoint, device="cpu")
    assert usual.calibration == Calibration()
    model = checkpoint({"temperature": 0.003})
    assert model.calibration == Calibration(temperature=0.003)

    words = ["cat", "wall", "bus"]
    found, plain = (each(photo(), words=words) for each in (model, usual))
    assert (found.labels == plain.labels).all() and (found.scores == plain.scores).all()
    assert found.record["calibration"] == {"temperature": 0.003, "none": None}

    # At a lower temperature the best word is more probable.
    assert found.confidence.mean() > plain.confidence.mean()
    assert plain.confidence.min() >= 1 / len(words) - 1e-3


def test_without_a_temperature_it_is_that_of_training(tiny_checkpoint: Path, photo):
    model = load(tiny_checkpoint, device="cpu").with_words(["cat", "wall", "bus"])
    confidence = model(photo()).confidence
    (scores, extent) = model(photo()).score_map
    rows, columns = (int(side) for side in extent)

    # At the center of the photo's first patch, the scores are those of the patch.
    probabilities = np.exp(model.logit_scale * scores[:, :rows, :columns].astype(float))
    highest = (probabilities / probabilities.sum(0)).max(0)
    assert confidence[0, 0] == pytest.approx(highest[0, 0], abs=0.01)


@pytest.mark.parametrize(
    "calibration", [{"temperature": -1}, {"temperature": "warm"}, {"heat": 1.0}]
)
def test_an_unusable_calibration_is_named(checkpoint, calibration: dict):
    with pytest.raises(ValueError, match="unusable calibration settings") as caught:
        checkpoint(calibration)
    assert "\n" not in str(caught.value).strip()


def test_under_a_threshold_the_background_is_one_more_class(tiny_checkpoint: Path, photo):
    model = load(tiny_checkpoint, device="cpu")
    open_photo: Image.Image = photo()
    usual = model(open_photo, words=["cat", "wall", "bus"], background="none")
    low, high = (
        model(open_photo, words=["cat", "wall", "bus"], background=f"threshold:{level}")
        for level in (-1, 1)
    )
    assert (low.labels == usual.labels).all() and (high.labels == 3).all()
    np.testing.assert_allclose(low.confidence, usual.confidence, atol=0.05)
    assert high.confidence.min() > 0.3

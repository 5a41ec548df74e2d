from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maskfree.files.outputs import is_replaceable
from maskfree.results.segmentation import ScoreMap, Segmentation
from test_segmentation import LABELS, segmentation

SCORES = np.arange(3 * 2 * 4).reshape(3, 2, 4).astype(np.float16)


def scored(background: str | None = None) -> Segmentation:
    return replace(
        segmentation(LABELS, background=background), score_map=ScoreMap(SCORES, (1.5, 4.0))
    )


def test_scores_are_read_by_numpy(tmp_path: Path):
    *_, path = scored().save(tmp_path, scores=True)
    assert path.name == "meadow.scores.npz"
    with np.load(path) as read:
        assert (read["scores"] == SCORES).all() and read["scores"].dtype == np.float16
        assert read["names"].tolist() == ["dog", "grass", "sofa"]
        assert read["extent"].tolist() == [1.5, 4.0]
    with zipfile.ZipFile(path) as archive:
        assert all(part.compress_type == zipfile.ZIP_DEFLATED for part in archive.infolist())


def test_under_a_threshold_the_background_has_no_scores(tmp_path: Path):
    *_, path = scored("threshold:0.1").save(tmp_path, scores=True)
    with np.load(path) as read:
        assert read["names"].tolist() == ["dog", "grass", "sofa"]


def test_scores_are_written_if_asked_for_only(tmp_path: Path):
    assert len(scored().save(tmp_path)) == 3
    with pytest.raises(ValueError, match="there is no score map"):
        segmentation(LABELS).save(tmp_path, "other", scores=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "meadow.json",
        "meadow.overlay.png",
        "meadow.png",
    }


@pytest.mark.parametrize("kind", ["npz", "text", "cut off"])
def test_scores_of_others_are_not_overwritten(tmp_path: Path, kind: str):
    place = tmp_path / "meadow.scores.npz"
    if kind == "npz":
        np.savez(place, scores=SCORES)
    elif kind == "text":
        place.write_text("mine")
    else:
        np.savez(place, software=np.array("maskfree"))
        place.write_bytes(place.read_bytes()[:-30])
    before = place.read_bytes()

    assert not is_replaceable(place)
    with pytest.raises(FileExistsError, match=r"meadow\.scores\.npz exists"):
        scored().save(tmp_path, scores=True)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_own_scores_are_replaced(tmp_path: Path):
    scored().save(tmp_path, scores=True)
    *_, path = replace(scored(), score_map=ScoreMap(SCORES + 1, (2.0, 4.0))).save(
        tmp_path, scores=True
    )
    with np.load(path) as read:
        assert (read["scores"] == SCORES + 1).all()


def test_the_record_says_how_sure_each_word_is(tmp_path: Path):
    confidence = np.linspace(0, 1, LABELS.size).reshape(LABELS.shape).astype(np.float16)
    result = replace(segmentation(LABELS, "dog,grass,sofa,bus"), confidence=confidence)
    sidecar = result.save(tmp_path)[2]
    said = json.loads(sidecar.read_text())["confidence"]
    assert list(said) == ["dog", "grass", "sofa"]
    for number, name in enumerate(said):
        expected = np.mean([float(value) for value in confidence[number == LABELS]])
        assert said[name] == pytest.approx(expected, abs=1e-4)

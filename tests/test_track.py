"""The video mode from frames to labels and files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from color_patches import ColorPatches
from maskfree.hub import loading
from maskfree.inference.clip_naming import ClipNaming
from maskfree.inference.segmenter import Segmenter
from maskfree.inference.tracking import (
    follow_mask,
    follow_words,
    index_map,
    plain_overlay,
    save_clip,
)
from maskfree.inference.tracking_config import TrackConfig
from maskfree.metrics import region_similarity
from maskfree.ops.propagation_config import PropagationConfig

SIZE = (160, 96)
CONFIG = TrackConfig(PropagationConfig(top_k=1, context=2, radius=2), side_px=96, finer=2)


@pytest.fixture
def segmenter(tiny_checkpoint: Path) -> Segmenter:
    return loading.load(str(tiny_checkpoint))


def clip(count: int, seed: int = 0):
    """The same colored noise again and again: nothing moves."""
    picture = np.random.default_rng(seed).integers(0, 255, (6, 10, 3), dtype=np.uint8)
    image = Image.fromarray(picture).resize(SIZE, Image.Resampling.NEAREST)
    return [(f"frame{index}", image) for index in range(count)]


def mask_of(**boxes) -> np.ndarray:
    """Objects by number, as n3=(left, top, right, bottom)."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    for name, (left, top, right, bottom) in boxes.items():
        mask[top:bottom, left:right] = int(name[1:])
    return mask


def test_objects_that_do_not_move_stay_and_keep_their_numbers(segmenter: Segmenter):
    segmenter = replace(segmenter, method=ColorPatches().eval())
    first = mask_of(n7=(16, 16, 64, 64), n3=(96, 32, 144, 80), n255=(64, 16, 72, 64))
    results = list(follow_mask(segmenter, clip(4), first, CONFIG))
    known = np.where(first == 255, 0, first)
    np.testing.assert_array_equal(index_map(results[0]), known)
    assert [result.names for result in results] == [("3", "7", "background")] * 4
    assert [result.record["photo"]["name"] for result in results] == [
        f"frame{index}" for index in range(4)
    ]
    for result in results[1:]:
        assert set(np.unique(index_map(result))) == {0, 3, 7}
        for number in (3, 7):
            assert region_similarity(known == number, result.mask(str(number))) > 0.95


def test_an_object_that_covers_the_frame(segmenter: Segmenter):
    for result in follow_mask(segmenter, clip(3), np.ones(SIZE[::-1], np.uint8), CONFIG):
        assert (index_map(result) == 1).all()


def test_words_start_as_they_are_named_and_stay(segmenter: Segmenter):
    worded = segmenter.with_words(["dog", "grass", "sky"], "threshold:-1")
    results = list(follow_words(worded, clip(4), CONFIG))
    assert results[3].names == ("dog", "grass", "sky", "background")
    assert (results[3].labels == results[0].labels).mean() > 0.85
    assert 0 <= results[3].scores.min() <= results[3].scores.max() <= 1.001


def test_words_are_looked_for_again(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch):
    """What comes later is labeled by what is seen there, little by little.

    Without it the first labels go on.
    """
    worded = segmenter.with_words(["dog", "grass"])
    calls = []
    own = ClipNaming.__call__

    def counted(self, frame, grid):
        labels, scores = own(self, frame, grid)
        calls.append(frame)
        return np.full_like(labels, min(1, len(calls) - 1)), scores

    monkeypatch.setattr(ClipNaming, "__call__", counted)
    results = list(follow_words(worded, clip(6), CONFIG, every=2))
    assert len(calls) == 3
    found = [set(np.unique(result.labels)) for result in results]
    assert found[:2] == [{0}, {0}]
    # Two labeled frames of three outvote the first; two alone are even.
    assert found[4:] == [{1}, {1}]
    assert results[0].record["every"] == 2

    calls.clear()
    results = list(follow_words(worded, clip(6), CONFIG))
    assert len(calls) == 1
    assert (results[5].labels == 0).all()


def test_files(segmenter: Segmenter, tmp_path: Path):
    first = mask_of(n2=(16, 16, 64, 64))
    results = list(save_clip(follow_mask(segmenter, clip(3), first, CONFIG), tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "first.png",
        "labels",
        "track.json",
    }
    assert {path.name for path in (tmp_path / "out/labels").iterdir()} == {
        f"frame{index}.png" for index in range(3)
    }
    with Image.open(tmp_path / "out/labels/frame0.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), first)
        colors = np.asarray(picture.convert("RGB"))
    assert (colors[0, 0] == 0).all()
    assert (colors[20, 20] == results[0].palette[0]).all()
    record = json.loads((tmp_path / "out/track.json").read_text())
    assert (record["ids"], record["names"]) == ([2, 0], ["2", "background"])
    assert record["tracking"]["propagation"]["top_k"] == 1
    assert plain_overlay(results[2]).size == SIZE


def test_what_cannot_be_followed(segmenter: Segmenter):
    first = mask_of(n1=(16, 16, 64, 64))
    with pytest.raises(ValueError, match="no frames"):
        next(follow_mask(segmenter, [], first, CONFIG))
    with pytest.raises(ValueError, match="no object"):
        next(follow_mask(segmenter, clip(2), np.zeros_like(first), CONFIG))
    with pytest.raises(ValueError, match="mask is 96x160, the frame frame0 160x96"):
        next(follow_mask(segmenter, clip(2), first.T.copy(), CONFIG))
    other = ("odd", Image.new("RGB", (96, 96)))
    with pytest.raises(ValueError, match="odd is 96x96, those before it 160x96"):
        list(follow_mask(segmenter, [*clip(1), other], first, CONFIG))
    with pytest.raises(ValueError, match="no words"):
        next(follow_words(segmenter, clip(2), CONFIG))
    with pytest.raises(ValueError, match="every -1"):
        next(follow_words(segmenter.with_words(["dog"]), clip(2), CONFIG, every=-1))
    with pytest.raises(ValueError, match="too many to follow"):
        next(follow_words(segmenter.with_words([f"dog {i}" for i in range(257)]), clip(2), CONFIG))


@pytest.mark.parametrize("wrong", [{"side_px": 0}, {"side_px": 5000}, {"finer": 0}])
def test_settings_outside_their_ranges(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        TrackConfig(**wrong)

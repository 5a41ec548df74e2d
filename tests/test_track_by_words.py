"""Words and earlier frames decide together: mistakes die, what leaves stays gone."""

from collections.abc import Set

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from color_patches import ColorPatches
from maskfree.inference.config import Inference
from maskfree.inference.scoring import Scorer
from maskfree.inference.segmenter import Segmenter
from maskfree.inference.tracking import follow_words
from maskfree.inference.tracking_config import TrackConfig
from maskfree.metrics import region_similarity
from maskfree.ops.propagation_config import PropagationConfig
from maskfree.text.vocabulary import Vocabulary

SIZE = (96, 64)
COLORS = {"square": (220, 40, 40), "ground": (40, 180, 60)}
CONFIG = TrackConfig(PropagationConfig(top_k=5, context=3, radius=3), side_px=64)
EVERY = 3


@pytest.fixture
def segmenter() -> Segmenter:
    """Words whose embeddings are those of their colors."""
    colors = torch.tensor(list(COLORS.values())) / 255
    embeddings = F.normalize(torch.cat([colors, torch.full((2, 1), 0.5)], dim=1), dim=1)
    return Segmenter(
        method=ColorPatches().eval(),
        tokenizer=lambda texts: pytest.fail("no text is embedded"),
        inference=Inference(side_px=64, class_prior=1.0),
        vocabulary=Vocabulary.parse(list(COLORS)),
        embeddings=embeddings,
    )


def scene(left: int | None) -> tuple[Image.Image, np.ndarray]:
    """A red square on green ground, or the ground alone; and where the square is."""
    pixels = np.full((SIZE[1], SIZE[0], 3), COLORS["ground"], np.uint8)
    mask = np.zeros(pixels.shape[:2], bool)
    if left is not None:
        mask[16:48, max(0, left) : max(0, left + 32)] = True
    pixels[mask] = COLORS["square"]
    return Image.fromarray(pixels), mask


def clip(lefts: list[int | None]) -> list[tuple[str, Image.Image]]:
    return [(f"{index:02d}", scene(left)[0]) for index, left in enumerate(lefts)]


def swap_scores(monkeypatch: pytest.MonkeyPatch, frames: Set[int]) -> None:
    """Exchange the scores of the two words in some of the labeled frames, counted from 0."""
    own, calls = Scorer.__call__, []

    def mistaken(self: Scorer, crops):
        # The first frame is scored twice: as a photo, and as the start of the clip.
        frame = max(0, len(calls) - 1)
        calls.append(frame)
        scores = own(self, crops)
        return scores.flip(1) if frame in frames else scores

    monkeypatch.setattr(Scorer, "__call__", mistaken)


def overlaps(segmenter: Segmenter, lefts: list[int | None], every: int) -> list[float]:
    """IoU of the square in each frame."""
    results = follow_words(segmenter, clip(lefts), CONFIG, every)
    return [
        region_similarity(scene(left)[1], result.labels == 0)
        for left, result in zip(lefts, results, strict=True)
    ]


STILL: list[int | None] = [32] * 13
MOVING: list[int | None] = [4 * index for index in range(13)]


@pytest.mark.parametrize("lefts", [STILL, MOVING], ids=["still", "moving"])
def test_a_first_frame_that_is_wrong_is_outvoted_by_the_third_that_is_labeled(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, lefts
):
    swap_scores(monkeypatch, {0})
    found = overlaps(segmenter, lefts, EVERY)
    assert max(found[:EVERY]) < 0.1
    assert min(found[2 * EVERY :]) > 0.75


def test_without_labeling_again_the_mistake_stays(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
):
    swap_scores(monkeypatch, {0})
    assert max(overlaps(segmenter, STILL, 0)) < 0.1


def test_a_later_frame_that_is_wrong_does_not_show(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
):
    swap_scores(monkeypatch, {2})
    assert min(overlaps(segmenter, STILL, EVERY)) > 0.75


def test_what_leaves_stays_gone(segmenter: Segmenter):
    lefts: list[int | None] = [8 - 8 * index for index in range(6)] + [None] * 12
    results = list(follow_words(segmenter, clip(lefts), CONFIG, EVERY))
    assert (results[0].labels == 0).mean() > 0.1
    for result in results[6 + EVERY :]:
        assert not (result.labels == 0).any()


def test_what_comes_late_gets_its_name(segmenter: Segmenter):
    """After many labeled frames a new one still weighs enough."""
    num_empty = 20 * EVERY
    lefts: list[int | None] = [None] * num_empty + [32] * (5 * EVERY)
    found = overlaps(segmenter, lefts, EVERY)
    assert min(found[:num_empty]) == 1.0
    assert found[-1] > 0.75

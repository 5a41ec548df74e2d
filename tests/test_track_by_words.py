"""Words and earlier frames decide together: mistakes die, what leaves stays gone."""

from collections.abc import Set
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from color_patches import ColorPatches
from maskfree.inference.clip_naming import ClipNaming
from maskfree.inference.config import Inference
from maskfree.inference.features import embed
from maskfree.inference.scoring import Scorer
from maskfree.inference.segmenter import Segmenter
from maskfree.inference.tracking import follow_words
from maskfree.inference.tracking_config import TrackConfig
from maskfree.metrics import region_similarity
from maskfree.ops.propagation import LabelPropagation
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


def test_only_the_first_frame_is_labeled_and_then_propagated(segmenter: Segmenter):
    """With 0 frames between, the labels are those of a plain loop over the propagation."""
    images = [image for _, image in clip(MOVING)]
    grids = [embed(segmenter, image).at(16, 24) for image in images]
    first, _ = ClipNaming(segmenter)(images[0], grids[0])
    shares = [
        F.avg_pool2d(torch.from_numpy(first == index).float()[None], 4)[0] for index in (0, 1)
    ]
    carried = LabelPropagation(CONFIG.propagation, grids[0], torch.stack(shares))

    expected = [first]
    for grid in grids[1:]:
        large = F.interpolate(carried(grid)[None], SIZE[::-1], mode="bilinear")[0]
        expected.append(large.argmax(0).numpy())
    for result, labels in zip(
        follow_words(segmenter, clip(MOVING), CONFIG, 0), expected, strict=True
    ):
        np.testing.assert_array_equal(result.labels, labels)


def test_a_word_that_scores_high_everywhere_does_not_take_every_pixel(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
):
    own = Scorer.__call__
    bias = torch.tensor([0.5, 0.0])[:, None, None]
    monkeypatch.setattr(Scorer, "__call__", lambda self, crops: own(self, crops) + bias)
    alone = replace(segmenter.inference, class_prior=0.0)
    assert (segmenter.with_inference(alone)(scene(32)[0]).labels == 0).all()
    assert min(overlaps(segmenter, MOVING, EVERY)) > 0.75
    assert min(overlaps(segmenter, STILL, 0)) > 0.75


def test_a_threshold_counts_on_the_scores_as_they_are(segmenter: Segmenter):
    """The ground scores 1 for its word, and hardly anything is closer than .98."""
    background = replace(segmenter.background, threshold=0.98)
    worded = replace(segmenter, background=background)
    image, mask = scene(32)
    grid = embed(worded, image).at(16, 24)
    labels, scores = ClipNaming(worded)(image, grid)
    assert region_similarity(mask, labels == 0) > 0.75
    np.testing.assert_allclose(scores[0, 0], 1.0, atol=2e-3)

    nothing = replace(segmenter, background=replace(background, threshold=1.1))
    labels, _ = ClipNaming(nothing)(image, grid)
    assert (labels == 2).all()


def test_the_class_prior_of_single_photos_does_not_count(segmenter: Segmenter):
    plain = segmenter.with_inference(replace(segmenter.inference, class_prior=0.0))
    image, _ = scene(32)
    grid = embed(plain, image).at(9, 17)
    for found, expected in zip(
        ClipNaming(segmenter)(image, grid), ClipNaming(plain)(image, grid), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("refinement", ["none", "pamr"])
def test_labels_lie_where_the_frame_shows_them(segmenter: Segmenter, refinement):
    """At an odd size, whose patches reach beyond the frame, and on a grid of another shape."""
    refined = segmenter.with_inference(replace(segmenter.inference, refine=refinement, side_px=51))
    image, mask = scene(32)
    image, mask = image.crop((0, 0, 93, 61)), mask[:61, :93]
    labels, scores = ClipNaming(refined)(image, embed(refined, image).at(31, 47))
    assert labels.shape == scores.shape == (61, 93)
    assert region_similarity(mask, labels == 0) > 0.8

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
from maskfree.ops.class_prior import CLASS_PRIOR_MAX, apply_class_prior, class_level
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
    first = segmenter(images[0]).labels
    shares = [
        F.avg_pool2d(torch.from_numpy(first == index).float()[None], 4)[0] for index in (0, 1)
    ]
    grids = [embed(segmenter, image).at(16, 24) for image in images]
    carried = LabelPropagation(CONFIG.propagation, grids[0], torch.stack(shares))

    expected = [first]
    for grid in grids[1:]:
        large = F.interpolate(carried(grid)[None], SIZE[::-1], mode="bilinear")[0]
        expected.append(large.argmax(0).numpy())
    for result, labels in zip(
        follow_words(segmenter, clip(MOVING), CONFIG, 0), expected, strict=True
    ):
        np.testing.assert_array_equal(result.labels, labels)


def test_without_a_class_prior_frames_are_labeled_one_by_one(segmenter: Segmenter):
    plain = segmenter.with_inference(replace(segmenter.inference, class_prior=0.0))
    clip_naming = ClipNaming(plain)
    for _, image in clip(MOVING):
        labels, scores = clip_naming(image)
        alone = plain(image)
        np.testing.assert_array_equal(labels, alone.labels)
        np.testing.assert_array_equal(scores, alone.scores)


def test_the_prior_of_a_clip_is_the_mean_of_its_first_frames(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
):
    """Compared with all steps written out, on noise, for five frames and words that win everywhere,
    hardly and nowhere.
    """
    generator = torch.Generator().manual_seed(0)
    wins = torch.tensor([0.0, -0.19, -0.7])[:, None, None]
    maps = [0.2 * torch.rand(3, 6, 9, generator=generator) + wins for _ in range(5)]
    queue = iter(maps)
    monkeypatch.setattr(
        "maskfree.inference.clip_naming.score_photos", lambda *_: [next(queue).clone()]
    )
    seen = []
    monkeypatch.setattr(
        Segmenter, "labels_of", lambda self, scores, size, padded: seen.append(scores)
    )
    clip_naming = ClipNaming(segmenter)
    for _, image in clip(MOVING[:5]):
        clip_naming(image)

    for count, (scores, found) in enumerate(zip(maps, seen, strict=True), 1):
        past = torch.stack(maps[:count])
        prior = apply_class_prior(past).mean(0)
        level = class_level(past).mean(0)
        for index in range(3):
            share = float(1 + prior[index] / CLASS_PRIOR_MAX)
            chosen = level.max() + max(0.0, share) * (level[index] - level.max())
            torch.testing.assert_close(found[index], scores[index] + prior[index] - chosen)

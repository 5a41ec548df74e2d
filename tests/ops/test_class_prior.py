"""Scores of patches steadied by their neighbors and by the photo as a whole."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from maskfree.ops.class_prior import apply_class_prior, class_levels, smooth

SCORES = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).float()


def test_width_one_changes_nothing():
    assert smooth(SCORES, 1) is SCORES


def test_a_constant_map_stays_and_its_size_too():
    assert_close(smooth(torch.full((2, 3, 4, 5), 0.25), 3), torch.full((2, 3, 4, 5), 0.25))


def test_a_patch_is_the_mean_of_its_square():
    assert_close(smooth(SCORES, 3)[1, 2, 2, 3], SCORES[1, 2, 1:4, 2:5].mean())
    corner = SCORES[0, 0, [0, 0, 1], :][:, [0, 0, 1]].mean()  # the border is repeated
    assert_close(smooth(SCORES, 3)[0, 0, 0, 0], corner)


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.1, 2), (0.5, 10), (1.0, 20)])
def test_presence_is_the_mean_margin_where_it_is_widest(share, count):
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 4, 5)
    others = torch.stack([scores[:, [1, 2]], scores[:, [0, 2]], scores[:, [0, 1]]], 1).amax(2)
    widest = (scores - others).flatten(2).sort(dim=2, descending=True).values[:, :, :count].mean(2)
    assert_close(apply_class_prior(scores, share, 9.0), widest[:, :, None, None] - 9.0)
    assert_close(
        apply_class_prior(scores, share, 0.1), (widest - 0.1).clamp_max(0)[:, :, None, None]
    )


def test_a_small_thing_that_wins_is_present_and_a_class_that_never_wins_is_not():
    scores = torch.zeros(1, 3, 4, 5)
    scores[0, 0] = 0.2  # wins nearly everywhere
    scores[0, 1, 1, 1:3] = 1.0  # wins on two patches
    scores[0, 2] = 0.15  # is near everywhere and wins nowhere
    found = apply_class_prior(scores, 0.1, 0.05)[0, :, 0, 0]
    assert found[:2].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert found[2].item() == pytest.approx(-0.1)


def test_ties_have_no_margin():
    assert_close(
        apply_class_prior(torch.ones(1, 2, 3, 4), 0.1, 0.05), torch.full((1, 2, 1, 1), -0.05)
    )


def test_of_one_class_nothing_can_be_said():
    assert_close(apply_class_prior(torch.randn(2, 1, 3, 4), 0.1, 0.05), torch.zeros(2, 1, 1, 1))


@pytest.mark.parametrize(("patches", "left_out"), [((4, 5), 0), ((10, 13), 3)])
def test_a_level_is_the_middle_without_the_outermost_patches(patches, left_out):
    torch.manual_seed(0)
    scores = torch.randn(2, 3, *patches)
    expected = torch.empty(2, 3, 1, 1)
    for photo in range(2):
        for name in range(3):
            values = sorted(scores[photo, name].flatten().tolist())
            values = values[left_out : len(values) - left_out]
            expected[photo, name] = (values[0] + values[-1]) / 2
    assert_close(class_levels(scores), expected)


def test_a_class_that_is_high_everywhere_does_not_cover_the_others():
    scores = torch.zeros(1, 2, 10, 10)
    scores[0, 0] = 0.6
    scores[0, 0, :, 5:] = 0.5  # a dog on the left, whose score is high on the grass too
    scores[0, 1, :, 5:] = 0.4  # grass
    assert (scores.argmax(1) == 0).all()
    leveled = scores - class_levels(scores)
    assert (leveled.argmax(1)[0, :, :5] == 0).all() and (leveled.argmax(1)[0, :, 5:] == 1).all()

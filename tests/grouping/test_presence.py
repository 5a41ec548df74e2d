"""Scores of patches steadied by their neighbours and by the photo as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.grouping.presence import presence, smooth
from tiny import tiny_vilseg_config

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
def test_presence_is_the_mean_of_the_strongest(share, count):
    expected = SCORES.flatten(2).sort(dim=2, descending=True).values[:, :, :count].mean(2)
    assert_close(presence(SCORES, share), expected[:, :, None, None])


def test_a_small_thing_counts_more_by_its_strongest_patches():
    small, weak = torch.zeros(1, 1, 4, 5), torch.full((1, 1, 4, 5), 0.2)
    small[0, 0, 1, 1:3] = 1.0
    assert presence(small, 0.1) > presence(weak, 0.1)
    assert presence(small, 1.0) < presence(weak, 1.0)


def segmented(**changes) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    method = replace(tiny_vilseg_config(), grouping="pixels", **changes).build().eval()
    torch.manual_seed(1)
    images, classes = torch.rand(2, 3, 48, 80), F.normalize(torch.randn(7, method.cluster.head.convolution.in_channels))
    with torch.no_grad():
        return method.segment(images, classes), torch.einsum(
            "bdhw,kd->bkhw", F.normalize(method.image(images), dim=1), classes
        )


def test_it_is_off_by_default():
    assert_close(*segmented())


def test_a_method_steadies_its_cosines_and_stays_in_their_range():
    scores, cosines = segmented(smooth=3, presence=2.0, presence_share=0.3)
    assert_close(scores, (smooth(cosines, 3) + 2 * presence(cosines, 0.3)) / 3)
    assert scores.abs().max() <= 1


@pytest.mark.parametrize("change", [{"smooth": 2}, {"smooth": -1}, {"presence": -1.0}, {"presence_share": 0.0}])
def test_settings_that_make_no_sense_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(tiny_vilseg_config(), **change).build()

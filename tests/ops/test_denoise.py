"""Prompt denoising and key smoothing: parity with MaskCLIP's code, and what corrected arithmetic
means.
"""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.ops.denoise import key_weights, smooth_by_keys, unlikely_classes


@pytest.mark.parametrize("case", ["square", "wide"])
def test_both_equal_the_published_code(case, fixture_tensors):
    given = fixture_tensors("maskclip_dense")
    out = {name: given[f"out.{case}.official.logits_{name}"].flatten(2) for name in KINDS}
    dropped = unlikely_classes(out["plain"], 0.5)
    denoised = out["plain"].masked_fill(dropped[..., None], -100)
    assert dropped.any() and not dropped.all()
    assert_close(denoised, out["prompt_denoise"], atol=1e-4, rtol=1e-4)
    # The published code normalizes each channel over the patches.
    keys = F.normalize(given[f"mid.{case}.official.k"].mT, dim=2)
    weights = keys.mT @ keys
    for cosines, name in ((out["plain"], "key_smooth"), (denoised, "both")):
        sure = (100 * cosines).softmax(1)
        smoothed = smooth_by_keys(sure, weights, sure.amax(1), 1.0)
        assert_close(smoothed, out[name], atol=1e-3 * float(out[name].abs().max()), rtol=0)


KINDS = ("plain", "prompt_denoise", "key_smooth", "both")


def test_class_stays_if_one_patch_is_sure_of_it():
    cosines = torch.tensor([[[0.9, 0.1, 0.1], [0.1, 0.4, 0.1], [0.2, 0.39, 0.1]]])
    assert unlikely_classes(cosines, 0.9).tolist() == [[False, True, True]]
    assert unlikely_classes(cosines, 0.7).tolist() == [[False, False, True]]


def test_photo_in_which_nothing_is_sure_keeps_all_classes():
    assert not unlikely_classes(torch.zeros(2, 5, 7), 0.5).any()


def test_every_photo_is_denoised_by_itself():
    cosines = torch.rand(3, 4, 6)
    alone = torch.cat([unlikely_classes(cosines[i : i + 1], 0.9) for i in range(3)])
    assert torch.equal(unlikely_classes(cosines, 0.9), alone)


def test_weights_are_cosines_of_keys_whatever_their_length():
    keys = torch.randn(2, 5, 7)
    weights = key_weights(keys)
    assert_close(weights.abs().sum(2), torch.ones(2, 7))
    assert_close(key_weights(keys * torch.rand(2, 1, 7).add(0.1)), weights)
    own = weights.diagonal(dim1=1, dim2=2)[..., None]
    assert_close(
        weights / own,
        F.cosine_similarity(keys[..., None], keys[:, :, None], dim=1),
        atol=1e-5,
        rtol=1e-4,
    )
    order = torch.randperm(7)
    assert_close(key_weights(keys[..., order]), weights[:, order][:, :, order])


def test_patches_of_one_key_get_one_score_that_is_a_cosine():
    keys = torch.eye(3)[:, [0, 0, 1, 1, 1]][None]
    scores = torch.rand(1, 4, 5) * 2 - 1
    smoothed = smooth_by_keys(scores, key_weights(keys), torch.zeros(1, 5), 1.0)
    expected = torch.cat(
        [
            scores[..., :2].mean(2, True).expand(-1, -1, 2),
            scores[..., 2:].mean(2, True).expand(-1, -1, 3),
        ],
        2,
    )
    assert_close(smoothed, expected)
    assert smoothed.abs().max() <= 1


def test_sure_patches_stay_as_they_are():
    scores, keys, sure = (
        torch.rand(1, 4, 5),
        torch.randn(1, 3, 5),
        torch.tensor([[0.9, 0.1, 0.9, 0.1, 0.5]]),
    )
    smoothed = smooth_by_keys(scores, key_weights(keys), sure, 0.5)
    assert torch.equal((smoothed == scores).all(1), sure >= 0.5)


def test_keys_of_zeros_give_no_nan():
    assert key_weights(torch.zeros(1, 3, 4)).isfinite().all()

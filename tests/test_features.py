"""Patch embeddings of a photo, and their resampling."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.inference.config import Inference
from maskfree.inference.features import PatchEmbeddings, embed
from maskfree.inference.segmenter import Segmenter
from tiny import spread_out, tiny_ovsegmentor_config, tiny_vilseg_config


def segmenter_of(method, tokenizer, **inference) -> Segmenter:
    return Segmenter(
        method=method.eval(),
        tokenizer=tokenizer,
        name="tiny",
        weights_hash="0",
        inference=Inference(**inference),
    )


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=0)


def test_as_many_places_as_patches_are_the_patches():
    values = unit(6, 3, 5)
    assert_close(PatchEmbeddings(values, (3.0, 5.0)).at(3, 5), values)


def test_places_lie_in_the_photo_and_not_in_its_padding():
    """Along a row the direction turns.

    The photo spans 2.5 of 4 patches, and its middle is at 1.25.
    """
    angles = torch.arange(4) / 4
    values = torch.stack([angles.cos(), angles.sin()])[:, None].expand(-1, 2, -1)
    sampled = PatchEmbeddings(values, (2.0, 2.5)).at(1, 1)
    assert_close(
        torch.atan2(sampled[1], sampled[0]), torch.full((1, 1), 0.75 / 4), atol=1e-3, rtol=0
    )
    many = PatchEmbeddings(values, (2.0, 2.5)).at(4, 10)
    turned = torch.atan2(many[1], many[0])[0]
    expected = ((torch.arange(10) + 0.5) / 4 - 0.5).clamp_min(
        0
    ) / 4  # half a patch from the border nothing changes
    assert_close(turned, expected, atol=2e-3, rtol=0)
    assert_close(many.norm(dim=0), torch.ones(4, 10))


@pytest.mark.parametrize("size", [(96, 64), (100, 70), (33, 200)])
def test_embeddings_are_those_that_scores_are_made_of(tiny_tokenizer, photo, size):
    method = spread_out(tiny_vilseg_config(vision=None, grouping="pixels").build())
    segmenter = segmenter_of(method, tiny_tokenizer, side_px=64)
    chosen = segmenter.with_words(["dog", "sky", "sofa"])
    found = embed(segmenter, photo(size))
    scores = torch.einsum("dhw,kd->khw", found.values, chosen.embeddings)
    assert_close(scores, chosen.score_map(photo(size)), atol=1e-5, rtol=1e-4)
    height, width = segmenter.inference.resized(size[1], size[0])
    assert found.extent == (height / 16, width / 16)
    assert found.extent[0] <= found.values.shape[1] < found.extent[0] + 1
    assert found.extent[1] <= found.values.shape[2] < found.extent[1] + 1


def test_of_patches_in_groups_the_groups_mean(tiny_tokenizer, photo):
    segmenter = segmenter_of(tiny_ovsegmentor_config().build(), tiny_tokenizer, side_px=64)
    found = embed(segmenter, photo((80, 64)))
    assert found.values.shape == (18, 4, 5)
    assert_close(found.values.norm(dim=0), torch.ones(4, 5))
    assert len(found.values.flatten(1).T.round(decimals=4).unique(dim=0)) <= 20


def test_smoothing_and_presence_are_not_for_embeddings(tiny_tokenizer, photo):
    method = spread_out(tiny_vilseg_config(vision=None, grouping="pixels").build())
    plain = segmenter_of(method, tiny_tokenizer, side_px=64)
    other = segmenter_of(method, tiny_tokenizer, side_px=64, smooth=5, class_prior=1.0)
    assert_close(embed(plain, photo()).values, embed(other, photo()).values)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (64, 64)])
def test_photos_of_one_color_and_any_size(tiny_tokenizer, size):
    method = spread_out(tiny_vilseg_config(vision=None, grouping="pixels").build())
    found = embed(
        segmenter_of(method, tiny_tokenizer, side_px=32), Image.new("RGB", size, (10, 200, 30))
    )
    assert found.values.isfinite().all()
    assert_close(found.at(3, 2).norm(dim=0), torch.ones(3, 2))

"""CorrCLIP: a proxy's attention within regions, and regions that vote on the labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.evaluation.protocol import Protocol, prepare, record
from maskfree.inference.config import Inference
from maskfree.inference.postprocessing import Postprocessing
from maskfree.inference.segmenter import Segmenter
from maskfree.methods.maskclip.presets import METHOD_PRESETS
from maskfree.methods.maskclip.proxied import read_by_proxy
from maskfree.nn.dense_clip_config import PROXY
from maskfree.nn.dense_patches import PatchAttention
from maskfree.nn.self_attention import scoped_attention
from maskfree.ops.region_scope import merge_alike
from maskfree.regions.patch_regions import patch_regions
from maskfree.regions.region_maps import SegmentConfig, region_map
from maskfree.text.background import Background
from maskfree.text.vocabulary import Vocabulary
from tiny import TINY_DINO, tiny_maskclip_config


def halves(height: int, width: int) -> torch.Tensor:
    """Photos that are dark to the left and light to the right, with some noise."""
    images = torch.rand(2, 3, height, width) / 100
    images[..., width // 2 :] += 0.8
    return images


def test_scoped_attention_equals_its_equation():
    features, regions = torch.randn(2, 6, 3, 4), torch.randint(0, 3, (2, 12))
    found = scoped_attention(features, regions)
    patches = F.normalize(features.flatten(2).mT, dim=-1)
    for image in range(2):
        for patch in range(12):
            near = [other for other in range(12) if regions[image, other] == regions[image, patch]]
            logits = torch.stack([4 * patches[image, patch] @ patches[image, o] for o in near])
            expected = torch.zeros(12)
            expected[near] = logits.softmax(0)
            assert_close(found[image, patch], expected)


@pytest.mark.parametrize("kind", ["contours", "slic", "felzenszwalb"])
def test_patches_have_the_region_of_their_center(kind):
    images = halves(60, 100)
    found = patch_regions(images, (12, 20), kind).unflatten(1, (12, 20))
    for image, regions in zip(images, found, strict=True):
        pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
        whole = region_map(pixels, SegmentConfig(kind))
        assert_close(regions, torch.from_numpy(whole[2::5, 2::5].astype(np.int64)))
    assert (found[..., 0] != found[..., -1]).all()


@torch.no_grad()
def test_scope_ends_at_the_edge_of_a_region():
    config = tiny_maskclip_config(proxy=TINY_DINO, scope="contours")
    config = replace(config, image=replace(config.image, last_block=PROXY))
    method = config.build().eval()
    images = halves(60, 100)
    grid = (12, 20)

    # Patches are compared by their brightness: dark ones and light ones are not alike.
    method.proxy = Brightness()
    features = method.proxy(images)
    regions = patch_regions(images, grid, "contours")
    weights = scoped_attention(features, merge_alike(features.flatten(2).mT, regions))
    assert (weights.unflatten(2, grid).unflatten(1, grid)[:, :, :10, :, 10:] == 0).all()

    # What CLIP sees is a little larger than the photo: 104 px are 13 patches of 8.
    larger = F.interpolate(images, (64, 104), mode="bilinear")
    expected = method.image.read(larger, PatchAttention(weights, grid)).features
    assert_close(method._read(images)[0].features, expected)
    assert (expected - unscoped(method, images)).abs().max() > 1e-4


def unscoped(method, images):
    """Features without a scope."""
    features = method.proxy(images)
    return read_by_proxy(method.image, features, images, None).features


class Brightness(torch.nn.Module):
    """Features of patches of 5 px: an angle that follows their brightness, and their row."""

    patch_size = 5

    def forward(self, images):
        angle = 3 * F.avg_pool2d(images.mean(1, keepdim=True), 5)
        rows = torch.linspace(-0.5, 0.5, angle.shape[2])[:, None].expand_as(angle)
        return torch.cat([angle.cos(), angle.sin(), rows], dim=1)


def test_vote_is_over_the_photo_at_its_size():
    photo = (255 * halves(40, 60)[0]).byte().permute(1, 2, 0).numpy()
    steps = Postprocessing(
        inference=Inference(side_px=40, vote="contours"),
        vocabulary=Vocabulary.parse(["a", "b"]),
        background=Background(),
        patch_size=5,
        logit_scale=1.0,
    )
    scores = torch.zeros(2, 8, 12)
    scores[0, :, :6], scores[1, :, 6:] = 1, 1
    scores[:, 2:4, 2:4] = scores[:, 2:4, 2:4].flip(0)  # a hole
    labels, best = steps.labels(scores, (80, 120), photo)
    before, _ = replace(steps, inference=Inference(side_px=40)).labels(scores, (80, 120), photo)
    assert (before[:, :60] == 1).any()
    assert (labels[:, :60] == 0).all() and (labels[:, 60:] == 1).all()
    assert best.shape == (80, 120) and best.min() > 0.5


def test_settings():
    preset = METHOD_PRESETS["corrclip"]
    assert preset.inference is not None and preset.inference.vote == "contours"
    with pytest.raises(ValueError, match="scope limits the attention of a proxy, and there is"):
        tiny_maskclip_config(scope="slic").build()
    with pytest.raises(ValueError, match="scope is 'sam'"):
        tiny_maskclip_config(scope="sam").build()


def test_protocol_keeps_the_vote_of_the_method(tiny_vilseg, tiny_tokenizer):
    segmenter = Segmenter(tiny_vilseg, tiny_tokenizer)
    assert "vote" not in record(segmenter, Protocol())
    voting = segmenter.with_inference(Inference(vote="slic"))
    prepared = prepare(voting, benchmark("voc20", Path("nowhere")), Protocol())
    assert record(prepared, Protocol())["vote"] == "slic"

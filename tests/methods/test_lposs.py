"""LPOSS: scores of a CLIP that spread over the patches of a proxy."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.methods.maskclip.presets import METHOD_PRESETS
from maskfree.ops.patch_graph import propagate_scores
from tiny import TINY_DINO, tiny_maskclip_config


@torch.no_grad()
def test_scores_are_those_of_values_spread_by_the_proxy():
    preset = replace(METHOD_PRESETS["lposs"], proxy=TINY_DINO)
    method = preset.apply(tiny_maskclip_config()).build().eval()
    plain = METHOD_PRESETS["value_only"].apply(tiny_maskclip_config()).build().eval()
    plain.load_state_dict(method.state_dict(), strict=False)

    # 40 px are patches of CLIP and of the proxy, 60 px are 7.5 of CLIP's.
    images, classes = torch.rand(2, 3, 40, 60), F.normalize(torch.randn(4, 18), dim=1)
    features = plain.image.read(F.interpolate(images, (40, 64), mode="bilinear")).features
    features = F.interpolate(features, (8, 12), mode="bilinear")
    pixels = F.normalize(plain.image.project(features), dim=1).flatten(2)
    before = classes @ pixels
    expected = propagate_scores(before, method.proxy(images), 0.95, 5)
    found = method.segment(images, classes)
    assert_close(found, expected.unflatten(2, (8, 12)), atol=1e-5, rtol=1e-4)
    assert (found.flatten(2) - before).abs().max() > 1e-3


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match="propagation needs features of a proxy"):
        tiny_maskclip_config(propagation=0.5).build()
    with pytest.raises(ValueError, match=r"propagation is 1\.0, must be in"):
        tiny_maskclip_config(propagation=1.0, proxy=TINY_DINO).build()

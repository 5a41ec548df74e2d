"""CLIP's ResNet read densely: a place by itself is what the pool makes of a photo of one place."""

import builtins

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.nn.clip_resnet import DenseClipResNet, make_resnet

SIZES = {"layers": [1, 1, 1, 1], "output_dim": 18, "heads": 4, "image_size": 32, "width": 8}


class Pool(nn.Module):
    """An attention pool with open_clip's names, in plain steps: the mean looks at itself and at all
    places.
    """

    def __init__(self, channels: int, heads: int, dim: int):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, dim)
        self.heads = heads

    def forward(self, features: Tensor) -> Tensor:
        places = features.flatten(2).mT
        places = torch.cat([places.mean(1, keepdim=True), places], dim=1)
        parts = (
            project(places).unflatten(2, (self.heads, -1))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts))
        return self.c_proj(mixed.transpose(1, 2).flatten(2)[:, 0])


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 32, stride=32)
        self.layer1, self.layer2, self.layer3 = nn.ReLU(), nn.BatchNorm2d(12), nn.Identity()
        self.layer4 = nn.Conv2d(12, 20, 1)
        self.attnpool = Pool(20, 4, 18)


@torch.no_grad()
def test_place_by_itself_is_the_pool_of_one_place():
    tower = DenseClipResNet(tower=Tower(), statistics="clip").eval()
    photo = torch.rand(2, 3, 32, 32)
    features = tower.read(photo).features
    assert_close(tower(photo)[..., 0, 0], tower.tower.attnpool(features))
    wide = torch.rand(1, 3, 64, 96)
    assert tower(wide).shape == (1, 18, 2, 3) and tower.read(wide).keys.shape == (1, 20, 2, 3)
    assert_close(tower(wide[..., 32:64, 64:])[..., 0, 0], tower(wide)[..., 1, 2])
    assert_close(tower.embed_whole(wide)[0], tower(wide)[0].flatten(1).mean(1))
    with pytest.raises(ValueError, match="does not divide into patches of 32 px"):
        tower(torch.rand(1, 3, 64, 90))


@torch.no_grad()
def test_open_clips_resnet():
    pytest.importorskip("open_clip", reason="open_clip is not installed (the extra zoo)")
    tower = DenseClipResNet(tower=make_resnet(SIZES), statistics="clip").eval()
    tower.tower.attnpool.positional_embedding.zero_()  # which dense use leaves out
    photo = torch.rand(1, 3, 32, 32)
    assert_close(
        tower(photo)[..., 0, 0],
        tower.tower((photo - tower.mean) / tower.deviation),
        atol=1e-5,
        rtol=1e-4,
    )
    assert tower(torch.rand(2, 3, 64, 96)).shape == (2, 18, 2, 3)
    with pytest.raises(ValueError, match="ModifiedResNet cannot be built"):
        make_resnet({"depth": 3})


def test_without_open_clip(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("open_clip"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"needs open_clip: pip install 'maskfree\[zoo\]'"):
        make_resnet(SIZES)

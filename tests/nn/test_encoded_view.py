"""Features that several objectives share while their encoders are equal."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from maskfree.nn.encoded_view import EncodedView
from maskfree.nn.image_encoder import ImageEncoder


class Counted(nn.Module):
    """A tower that counts its passes."""

    def __init__(self, last: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), last)
        self.passes = 0

    def forward(self, images):
        self.passes += 1
        return self.layers(images)


def encoder(last: nn.Module | None = None) -> ImageEncoder:
    return ImageEncoder(
        tower=Counted(last or nn.ReLU()),
        read=lambda tower, images, _: tower(images),
        channels=5,
        patch_size=4,
        statistics="half",
    ).train()


def test_a_copy_takes_the_features_and_gets_no_gradient():
    own = encoder()
    copy = deepcopy(own)
    view = EncodedView(torch.rand(2, 3, 8, 12), own)
    found = view.features_by(copy)
    assert torch.equal(found, view.features) and not found.requires_grad
    assert view.features.requires_grad
    assert (own.tower.passes, copy.tower.passes) == (1, 0)
    assert torch.equal(copy(view.images), found)


def test_other_weights_are_run():
    own = encoder()
    other = deepcopy(own)
    with torch.no_grad():
        other.tower.layers[0].bias[2] += 1e-6
    view = EncodedView(torch.rand(2, 3, 8, 12), own)
    found = view.features_by(other)
    assert other.tower.passes == 1 and not found.requires_grad
    assert torch.equal(found, other(view.images).detach())


def test_networks_with_random_numbers_or_statistics_are_run():
    for last in (nn.BatchNorm2d(5), nn.Dropout(0.5)):
        own = encoder(last)
        copy = deepcopy(own)
        view = EncodedView(torch.rand(2, 3, 8, 12), own)
        view.features_by(copy)
        assert copy.tower.passes == 1
        assert all(
            torch.equal(value, copy.state_dict()[name]) for name, value in own.state_dict().items()
        )

        view.features_by(copy.eval())
        assert copy.tower.passes == 2
        EncodedView(view.images, own.eval()).features_by(copy)
        assert copy.tower.passes == 2

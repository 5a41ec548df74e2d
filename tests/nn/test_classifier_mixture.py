"""Projections that start from what they know: through visual words, and near the identity."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.nn.classifier_mixture import ClassifierMixture
from maskfree.nn.projection import NearIdentity
from maskfree.nn.projection_config import ProjectionConfig

CHANNELS, WORDS, DIM = 7, 5, 4


@pytest.fixture
def projection() -> ClassifierMixture:
    return ProjectionConfig("classifier_mixture", num_classes=WORDS).build_for_pixels(CHANNELS, DIM)


@torch.no_grad()
def test_unsure_pixels_get_the_mean_word(projection: ClassifierMixture):
    projection.classifier.weight.zero_()
    projection.classifier.bias.fill_(3.0)
    projection.linear.weight.zero_()
    projection.linear.bias.copy_(torch.arange(4.0))
    embeddings = projection(torch.randn(2, CHANNELS, 3, 6))
    expected = projection.words.weight[:, :, 0, 0].mean(1) + torch.arange(4.0)
    assert_close(embeddings, expected[None, :, None, None].expand(2, DIM, 3, 6))


@torch.no_grad()
def test_sure_pixels_get_their_own_word_and_the_linear_map(projection: ClassifierMixture):
    projection.classifier.weight.copy_(100 * torch.eye(WORDS, CHANNELS)[:, :, None, None])
    chosen = torch.randint(WORDS, (2, 3, 6))
    features = F.one_hot(chosen, CHANNELS).movedim(-1, 1).float()
    expected = projection.words.weight[:, :, 0, 0].T[chosen].movedim(-1, 1) + projection.linear(
        features
    )
    assert_close(projection(features), expected)
    assert projection.linear(features).norm() < 0.1 * expected.norm(), "the words lead at first"


def test_pixels_are_projected_one_by_one(projection: ClassifierMixture):
    features = torch.randn(2, CHANNELS, 3, 6)
    projected = projection(features)
    assert projected.shape == (2, DIM, 3, 6)
    assert_close(projection(features[1:, :, 2:, 4:]), projected[1:, :, 2:, 4:])


def test_everything_learns(projection: ClassifierMixture):
    projection(torch.randn(2, CHANNELS, 3, 6)).square().sum().backward()
    for name, weight in projection.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_text_projection_starts_as_the_identity_of_directions():
    projection = ProjectionConfig("near").build_for_vectors(DIM, DIM)
    assert isinstance(projection, NearIdentity)
    features = 9 * torch.randn(3, DIM)
    assert_close(projection(features), F.normalize(features, dim=-1))
    projection(features).sum().backward()
    assert projection.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "build", "message"),
    [
        ("near", "build_for_pixels", "'near' is for texts only"),
        ("classifier_mixture", "build_for_vectors", "'classifier_mixture' is for pixels only"),
    ],
)
def test_each_has_its_side(kind: str, build: str, message: str):
    with pytest.raises(ValueError, match=message):
        getattr(ProjectionConfig(kind, num_classes=WORDS), build)(DIM, DIM)


def test_text_projection_needs_equal_widths():
    with pytest.raises(ValueError, match="'near' keeps 7 channels, but the embedding has 4"):
        ProjectionConfig("near").build_for_vectors(CHANNELS, DIM)

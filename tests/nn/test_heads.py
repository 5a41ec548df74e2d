import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.nn.cluster_head import ClusterHead
from maskfree.nn.projection_config import ProjectionConfig


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_pixels_are_projected_one_by_one(kind):
    projection = ProjectionConfig(kind, hidden=9).build_for_pixels(7, 4)
    features = torch.randn(2, 7, 3, 5)
    projected = projection(features)
    assert projected.shape == (2, 4, 3, 5)
    assert_close(projection(features[1:, :, 2:, 4:]), projected[1:, :, 2:, 4:])


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_vectors_are_projected(kind):
    assert ProjectionConfig(kind, hidden=9).build_for_vectors(7, 4)(torch.randn(3, 7)).shape == (
        3,
        4,
    )


def test_a_batch_norm_mlp_has_the_statistics_of_all_vectors():
    """As the released OVSegmentor's ProjectMLP: convolutions of length 1 and a norm over samples
    and positions.
    """
    projection = ProjectionConfig("batchnorm_mlp", hidden=9).build_for_vectors(7, 4).train()
    widen, norm, narrow = (nn.Conv1d(7, 9, 1), nn.BatchNorm1d(9), nn.Conv1d(9, 4, 1))
    with torch.no_grad():
        for convolution, linear in ((widen, projection.widen), (narrow, projection.narrow)):
            convolution.weight.copy_(linear.weight[..., None])
            convolution.bias.copy_(linear.bias)
    features = 3 + torch.randn(2, 5, 7)
    expected = narrow(norm(widen(features.mT)).relu()).mT
    assert_close(projection(features), expected)
    assert_close(projection.norm.running_mean, norm.running_mean)
    assert_close(projection.norm.running_var, norm.running_var)
    assert projection(features[:, 0]).shape == (2, 4)
    with pytest.raises(ValueError, match="'batchnorm_mlp' is for vectors only"):
        ProjectionConfig("batchnorm_mlp").build_for_pixels(7, 4)


def test_identity_needs_equal_widths():
    features = torch.randn(3, 7)
    assert torch.equal(ProjectionConfig("identity").build_for_vectors(7, 7)(features), features)
    with pytest.raises(ValueError, match="7 channels"):
        ProjectionConfig("identity").build_for_vectors(7, 4)


def test_cluster_head_gives_distributions():
    head = ClusterHead(dim=6, num_clusters=5)
    assignment = head(torch.randn(2, 6, 3, 4))
    assert assignment.shape == (2, 5, 3, 4)
    assert_close(assignment.sum(1), torch.ones(2, 3, 4))


def test_a_standardized_head_sees_directions_whatever_they_share():
    """Embeddings of any length around a common direction: each channel comes to mean 0 and the
    asked deviation.
    """
    head = ClusterHead(dim=6, num_clusters=5, standardized=True)
    pixels = torch.randn(64, 6, 3, 4) + 20
    unit = F.normalize(pixels, dim=1)
    seen = []
    head.convolution.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    head.observe(pixels, lambda tensor: tensor)
    assert_close(head(3 * pixels), head(pixels))
    assert_close(seen[0].mean((0, 2, 3)), torch.zeros(6), atol=1e-3, rtol=0)
    assert_close(seen[0].std((0, 2, 3)), torch.full((6,), 0.5), atol=5e-3, rtol=0)
    head.observe(-pixels, lambda tensor: tensor)  # a tenth of the way towards the mirrored data
    assert_close(head.statistics.mean, 0.8 * unit.mean((0, 2, 3)), atol=1e-4, rtol=0)


def test_statistics_of_two_processes_are_those_of_one():
    pixels = torch.randn(4, 6, 3, 5)
    whole, second, first = (ClusterHead(dim=6, num_clusters=5, standardized=True) for _ in range(3))
    whole.observe(pixels, lambda tensor: tensor)
    sent = []
    second.observe(pixels[2:], lambda tensor: sent.append(tensor) or tensor)
    first.observe(pixels[:2], lambda tensor: torch.cat([tensor, *sent]))
    assert_close(first.statistics.mean, whole.statistics.mean)
    assert_close(first.statistics.variance, whole.statistics.variance)

"""PSPNet's head."""

import pytest
import torch
from torch.testing import assert_close

from maskfree.nn.pyramid_pooling import BINS, PyramidPooling


def head() -> PyramidPooling:
    return PyramidPooling(channels=7, width=12, dim=5)


@pytest.mark.parametrize("patches", [(1, 1), (2, 5), (11, 6)])
def test_there_is_a_vector_for_every_patch(patches):
    assert head()(torch.randn(2, 7, *patches)).shape == (2, 5, *patches)


@pytest.mark.parametrize("width", [2, 16, 32, 48])
def test_the_pool_of_one_bin_says_something_of_a_single_photo(width):
    """A norm over a single value would refuse it, or make it 0."""
    pyramid = PyramidPooling(channels=7, width=width, dim=5)
    whole = [pyramid.pools[0](torch.randn(1, 7, 1, 1)) for _ in range(3)]
    assert not torch.allclose(whole[0], whole[1]) or not torch.allclose(whole[0], whole[2])


def test_photos_of_a_batch_do_not_meet():
    pyramid, features = head(), torch.randn(3, 7, 6, 5)
    together = pyramid(features)
    assert_close(together[1:2], pyramid(features[1:2]), atol=1e-5, rtol=1e-4)
    assert_close(together, pyramid.eval()(features))


@pytest.mark.parametrize("index", range(len(BINS)))
def test_each_pool_has_a_mean_for_each_of_its_bins(index):
    """On 12 x 12 patches each bin is a square of its own: what comes into a pool's first layer are
    the means there.
    """
    pyramid, features, seen = head(), torch.randn(2, 7, 12, 12), []
    pyramid.pools[index].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    pyramid(features)
    side = 12 // BINS[index]
    assert seen[0].shape == (2, 7, BINS[index], BINS[index])
    assert_close(seen[0], features.unflatten(3, (-1, side)).unflatten(2, (-1, side)).mean((3, 5)))


def test_the_whole_photo_is_heard_everywhere():
    features = torch.randn(1, 7, 9, 10, requires_grad=True)
    head()(features)[0, :, 0, 0].square().sum().backward()
    assert (features.grad.abs().sum(1) > 0).all()


def test_every_part_learns():
    pyramid = head()
    pyramid(torch.randn(2, 7, 7, 8)).square().sum().backward()
    assert all(
        weight.grad is not None and weight.grad.abs().sum() > 0 for weight in pyramid.parameters()
    )

import pytest
import torch
from torch.testing import assert_close

from maskfree.nn.deeplab import ASPP, ResidualHead


def head(dilations=(2, 3), dim=5) -> ASPP:
    return ASPP(channels=7, width=12, dim=dim, dilations=dilations)


@pytest.mark.parametrize("dilations", [(1,), (2, 3), (3, 6, 9)])
@pytest.mark.parametrize("patches", [(1, 1), (3, 4), (11, 6)])
def test_there_is_a_vector_for_every_patch(dilations, patches):
    assert head(dilations)(torch.randn(2, 7, *patches)).shape == (2, 5, *patches)


def test_photos_of_a_batch_do_not_meet():
    pyramid, features = head(), torch.randn(3, 7, 6, 5)
    together = pyramid(features)
    assert_close(together[1:2], pyramid(features[1:2]), atol=1e-5, rtol=1e-4)
    pyramid.eval()
    assert_close(together, pyramid(features))  # one photo's statistics, also at inference


def test_a_branch_looks_as_far_as_its_dilation():
    """Of one branch alone, a patch hears those that are 0 or 4 away, down and across,
    and no other.
    """
    branch = head((4,)).atrous[0][0]
    features = torch.zeros(1, 12, 11, 13, requires_grad=True)
    branch(features)[0, :, 5, 6].sum().backward()
    heard = {tuple(place) for place in features.grad.abs().sum(1)[0].nonzero().tolist()}
    assert heard == {(y, x) for y in (1, 5, 9) for x in (2, 6, 10)}


def test_the_whole_photo_is_heard_everywhere():
    pyramid = head((1,))
    features = torch.randn(1, 7, 9, 10, requires_grad=True)
    pyramid.whole(pyramid.reduce(features).mean((2, 3), keepdim=True)).square().sum().backward()
    assert (features.grad.abs().sum(1) > 0).all()


def test_every_part_learns():
    pyramid = head()
    pyramid(torch.randn(2, 7, 6, 5)).square().sum().backward()
    assert all(
        weight.grad is not None and weight.grad.abs().sum() > 0 for weight in pyramid.parameters()
    )


def test_a_correction_starts_as_nothing_and_learns():
    known, features = torch.nn.Conv2d(7, 5, 1), torch.randn(2, 7, 6, 4)
    corrected = ResidualHead(known, head())
    assert torch.equal(corrected(features), known(features))
    corrected(features).square().sum().backward()
    assert corrected.pyramid.out.weight.grad.any() and known.weight.grad.any()

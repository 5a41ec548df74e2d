"""Prototypes of classes among a teacher's segments."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.ops.prototypes import segments_of, top_prototypes


def unit(*shape: int, dim: int = 1) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=dim)


def test_segments_are_unit_means_of_pixels_that_are_alike():
    halves = torch.eye(4)[[0, 0, 0, 2, 2, 2]].T[:, None].expand(-1, 5, -1)  # 5 x 6 pixels
    found = segments_of(halves, 2)
    assert_close(found[found.argmax(1).argsort()], torch.eye(4)[[0, 2]])
    noise = unit(4, 9, 7, dim=0)
    segments = segments_of(noise.half(), 6)
    assert segments.shape[0] <= 6 and segments.dtype == torch.float32
    assert_close(segments.norm(dim=1), torch.ones(len(segments)))
    assert (segments @ F.normalize(noise.sum((1, 2)), dim=0)).isfinite().all()


def test_a_photo_of_one_color_has_segments_that_are_alike():
    seen = unit(5, 1, dim=0)[:, :, None].expand(5, 4, 6)
    segments = segments_of(seen, 9)
    assert 1 <= len(segments) <= 9
    assert_close(segments, seen[:, 0, 0].expand_as(segments))


def test_a_map_of_fewer_patches_than_segments_has_one_for_each_at_most():
    segments = segments_of(unit(5, 2, 3, dim=0), 36)
    assert 1 <= len(segments) <= 6 and segments.isfinite().all()


@pytest.mark.parametrize("top", [1, 4, 20])
def test_a_prototype_is_the_mean_of_the_segments_with_the_highest_probability(top):
    segments, texts = unit(20, 6), unit(3, 6)
    known, won = top_prototypes(segments, segments @ texts.T, top, 5.0)
    exponentials = (5 * segments @ texts.T).exp()
    probabilities = exponentials / exponentials.sum(1, keepdim=True)
    for index in range(3):
        best = sorted(range(20), key=lambda row: -probabilities[row, index])[:top]
        mean = sum(segments[row] for row in best) / top
        assert_close(known[index], mean / mean.norm())
    assert won.tolist() == [(probabilities.argmax(1) == index).sum() for index in range(3)]


def test_it_is_the_probability_that_counts_not_the_cosine():
    """The first segment is closest to both texts and cannot tell them apart; the second one can."""
    texts = F.normalize(torch.tensor([[1.0, 0.3, 0.0], [1.0, -0.3, 0.0]]), dim=1)
    segments = F.normalize(torch.tensor([[1.0, 0.01, 0.0], [0.3, 0.3, 0.8]]), dim=1)
    cosines = segments @ texts.T
    assert cosines[:, 0].argmax() == 0
    assert_close(top_prototypes(segments, cosines, 1, 10.0)[0][0], segments[1])


def test_a_class_that_no_segment_resembles_has_a_prototype_all_the_same():
    segments = F.normalize(torch.tensor([[1.0, 0.1, 0.0], [1.0, 0.2, 0.0], [0.9, 0.0, 0.3]]), dim=1)
    texts = torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    known, won = top_prototypes(segments, segments @ texts.T, 1, 10.0)
    assert won.tolist() == [3, 0]
    assert_close(known[1], segments[2])  # the one that is least unlike it
    assert_close(known.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("top", [0, 5])
def test_fewer_segments_than_a_prototype_takes(top):
    segments = unit(4, 6)
    with pytest.raises(ValueError, match=f"mean of {top} segments: there are 4"):
        top_prototypes(segments, segments @ unit(2, 6).T, top, 5.0)

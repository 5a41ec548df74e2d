"""Propagation of scores over patches."""

import math

import pytest
import torch
from torch.testing import assert_close

from maskfree.ops import patch_graph
from maskfree.ops.patch_graph import propagate_scores


def slow_propagation(scores, features, share, patch_px, most):
    """One photo, by the sums of the paper and many steps instead of a solution."""
    columns = features.shape[2]
    patches = features.flatten(1).T.double()
    number = len(patches)
    cosine = [
        [float(one @ other / one.norm() / other.norm()) for other in patches] for one in patches
    ]
    weights = torch.zeros(number, number, dtype=torch.float64)
    for one in range(number):
        nearest = sorted(range(number), key=lambda other: -cosine[one][other])[:most]
        for other in nearest:
            if other != one:
                down = one // columns - other // columns
                across = one % columns - other % columns
                near = math.exp(-0.01 * patch_px * math.hypot(down, across))
                value = max(cosine[one][other], 0) ** 3 * near
                weights[one, other] += value
                weights[other, one] += value
    degree = weights.sum(1)
    scale = torch.tensor([1 / math.sqrt(value) if value else 0 for value in degree.tolist()])
    affinity = scale[:, None] * weights * scale[None]
    found = scores.T.double()
    for _ in range(400):
        found = share * affinity @ found + (1 - share) * scores.T.double()
    return found.T


@pytest.mark.parametrize("most", [4, 400])
def test_equals_many_steps(most, monkeypatch):
    monkeypatch.setattr(patch_graph, "_MAX_NEIGHBORS", most)
    scores, features = torch.randn(2, 3, 20), torch.randn(2, 6, 4, 5)
    found = propagate_scores(scores, features, 0.9, 16)
    for image in range(2):
        expected = slow_propagation(scores[image], features[image], 0.9, 16, most)
        assert_close(found[image], expected.float(), atol=1e-4, rtol=1e-4)
    assert_close(propagate_scores(scores, features, 0.0, 16), scores)


def test_order_of_patches_does_not_matter():
    scores, features = torch.randn(1, 3, 6), torch.randn(1, 4, 2, 3)
    turned = propagate_scores(scores.flip(2), features.flip(2, 3), 0.8, 8)
    assert_close(turned.flip(2), propagate_scores(scores, features, 0.8, 8))


def test_patch_unlike_all_others_gets_nothing_from_them():
    features = torch.eye(4).view(1, 4, 2, 2)
    scores = torch.randn(1, 3, 4)
    assert_close(propagate_scores(scores, features, 0.75, 8), 0.25 * scores)

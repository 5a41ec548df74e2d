"""Merging of regions by features, and the vote of regions on labels."""

import numpy as np
import torch
from torch.nn import functional as F

from maskfree.ops.region_scope import merge_alike, vote


def slow_merge(features, regions, min_cosine):
    """Regions of one photo, merged link by link until nothing changes."""
    patches = F.normalize(features, dim=1)
    names = sorted(set(regions.tolist()))
    means = {}
    for name in names:
        means[name] = F.normalize(patches[regions == name].mean(0), dim=0)
    merged, changed = {name: name for name in names}, True
    while changed:
        changed = False
        for one in names:
            for other in names:
                low = min(merged[one], merged[other])
                alike = float(means[one] @ means[other]) >= min_cosine
                if alike and merged[one] != merged[other]:
                    merged[one] = merged[other] = low
                    changed = True
    return [merged[name] for name in regions.tolist()]


def test_merging_equals_links_one_by_one():
    # Angles from region to region: a chain of small steps, and jumps.
    angles = torch.tensor([0.0, 0.5, 1.0, 2.0, 2.4, 4.0, 5.0])
    regions = torch.tensor([[0, 0, 1, 2, 3, 3, 4, 6, 6, 1], [6, 4, 4, 3, 2, 1, 0, 0, 0, 2]])
    features = torch.stack([angles[regions].cos(), angles[regions].sin()], dim=-1)
    features = features * torch.rand(2, 10, 1).add(0.5)
    merged = merge_alike(features, regions, 0.8)
    for number in range(2):
        assert merged[number].tolist() == slow_merge(features[number], regions[number], 0.8)
    assert 1 < len(merged[0].unique()) < len(regions[0].unique())


def test_merging_by_nothing_and_everything():
    features, regions = torch.randn(2, 12, 5), torch.randint(0, 4, (2, 12))
    assert torch.equal(merge_alike(features, regions, 1.01), regions)
    assert len(merge_alike(features, regions, -1.01).unique()) == 1


def slow_vote(labels, scores, regions):
    labels, scores = labels.copy(), scores.astype(np.float64)
    for region in np.unique(regions):
        inside = regions == region
        found, counts = np.unique(labels[inside], return_counts=True)
        winner = found[counts.argmax()]
        mean = scores[inside & (labels == winner)].mean()
        scores[inside & (labels != winner)] = mean
        labels[inside] = winner
    return labels, scores


def test_vote_equals_counting_region_by_region():
    numbers = np.random.default_rng(0)
    regions = numbers.integers(0, 6, (9, 13)).astype(np.uint8)
    regions[regions == 3] = 2  # an empty region
    for kind in (np.uint8, np.uint16):
        labels = numbers.integers(0, 5, (9, 13)).astype(kind)
        scores = numbers.random((9, 13)).astype(np.float16)
        voted, changed = vote(labels, scores, regions)
        expected = slow_vote(labels, scores, regions)
        assert voted.dtype == kind and changed.dtype == np.float16
        np.testing.assert_array_equal(voted, expected[0])
        np.testing.assert_allclose(changed, expected[1], atol=1e-3)
        assert (voted != labels).any()

"""Refinement by regions: averages over levels against a slow plain version, merges against the cuts
of the hierarchy, averages that stay averages, photos of any size.
"""

import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from maskfree.inference.refinement import refine
from maskfree.inference.region_refinement import REGION_PIXELS, by_regions
from maskfree.ops.label_map import enlarge
from maskfree.regions import region_average
from maskfree.regions.region_average import average_over_levels
from maskfree.regions.region_maps import contour_hierarchy


def patchwork(height, width, seed=0):
    """A noisy photo of large rectangles."""
    rng = np.random.default_rng(seed)
    large = rng.integers(30, 220, (3, 4, 3)).repeat(-(-height // 3), 0).repeat(-(-width // 4), 1)
    return (large[:height, :width] + rng.integers(-9, 10, (height, width, 3))).astype(np.uint8)


def random_merges(num_leaves, rng):
    """Parents of a hierarchy that merges two random regions at a time."""
    parents, alive = np.zeros(2 * num_leaves - 1, np.int64), list(range(num_leaves))
    for node in range(num_leaves, 2 * num_leaves - 1):
        for child in rng.choice(alive, 2, replace=False).tolist():
            parents[child] = node
            alive.remove(child)
        alive.append(node)
    parents[-1] = len(parents) - 1
    return parents


def members(node, parents, num_leaves):
    """Smallest regions within a node."""
    if node < num_leaves:
        return [node]
    children = [child for child in np.flatnonzero(parents == node) if child != node]
    return [leaf for child in children for leaf in members(child, parents, num_leaves)]


def slow_average(means, sizes, parents, fine_px, coarse_px, min_share):
    """Sum over whole numbers of regions, each with its length on the logarithmic scale."""
    num_leaves, result = len(sizes), np.zeros_like(means)
    finest, coarsest = sizes.sum() / fine_px, sizes.sum() / coarse_px
    for leaf in range(num_leaves):
        for number in range(1, int(finest) + 2):
            low, high = max(number - 1, coarsest), min(number, finest)
            if low >= high:
                continue

            # Merges of which at least so many regions are left, then those of crumbs.
            node = leaf
            while node != parents[node] and 2 * num_leaves - 2 - parents[node] + 1 >= number:
                node = parents[node]
            inside = members(node, parents, num_leaves)
            while sizes[inside].sum() < min_share * sizes.sum():
                node = parents[node]
                inside = members(node, parents, num_leaves)

            mean = (means[inside] * sizes[inside, None]).sum(0) / sizes[inside].sum()
            result[leaf] += mean * np.log(high / low) / np.log(finest / coarsest)
    return result


@pytest.mark.parametrize(
    ("num_leaves", "fine_px", "coarse_px", "min_share"),
    [(20, 31, 140, 0.0), (20, 31, 140, 0.2), (7, 3, 80, 0.1), (5, 2, 4, 0.0), (6, 60, 900, 0.3)],
)
def test_averages_equal_a_sum_over_the_numbers_of_regions(
    monkeypatch, num_leaves, fine_px, coarse_px, min_share
):
    monkeypatch.setattr(region_average, "FINE_PX", fine_px)
    monkeypatch.setattr(region_average, "COARSE_PX", coarse_px)
    monkeypatch.setattr(region_average, "MIN_SHARE", min_share)
    rng = np.random.default_rng(num_leaves)
    means, sizes = rng.normal(size=(num_leaves, 3)), rng.integers(1, 40, num_leaves)
    parents = random_merges(num_leaves, rng)
    expected = slow_average(means, sizes, parents, fine_px, coarse_px, min_share)
    np.testing.assert_allclose(average_over_levels(means, sizes, parents), expected, atol=1e-9)


def test_merges_give_the_cuts_of_the_hierarchy():
    hierarchy = contour_hierarchy(patchwork(37, 52))
    basins, parents = hierarchy.merges()
    num_leaves = int(basins.max()) + 1
    assert basins.shape == (37, 52)
    assert len(parents) == 2 * num_leaves - 1 > 20

    for threshold, cut in zip((0.1, 0.4), hierarchy.cuts((0.1, 0.4)), strict=True):
        top = np.arange(num_leaves)
        while (moves := hierarchy.altitudes[parents[top]] <= threshold).any():
            if (parents[top][moves] == top[moves]).all():
                break
            top = np.where(moves, parents[top], top)
        pairs = np.unique(np.stack([top[basins].ravel(), cut.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(top)) == len(np.unique(cut)) > 1


def test_scores_are_averaged_over_the_part_that_the_photo_covers():
    photo, scores, extent = patchwork(45, 62), torch.rand(3, 6, 8), (45 / 9, 62 / 9)
    basins, parents = contour_hierarchy(photo).merges()
    values = enlarge(scores, (45, 62), extent).double().numpy()
    means = np.stack([values[:, basins == basin].mean(1) for basin in range(int(basins.max()) + 1)])
    averages = average_over_levels(means, np.bincount(basins.ravel()), parents)
    expected = torch.from_numpy(np.moveaxis(averages[basins], -1, 0)).float()
    assert_close(by_regions(photo, scores, extent), expected)
    assert (expected - torch.from_numpy(values).float()).abs().max() > 0.1


def test_regions_average_and_add_nothing():
    photo, scores = patchwork(41, 70), torch.rand(5, 4, 7)
    refined = by_regions(photo, scores, (4.0, 7.0))
    assert (refined.amax((1, 2)) <= scores.amax((1, 2)) + 1e-6).all()
    assert (refined.amin((1, 2)) >= scores.amin((1, 2)) - 1e-6).all()
    assert_close(by_regions(photo, scores.flip(0), (4.0, 7.0)), refined.flip(0))

    constant = torch.full_like(scores, 0.25)
    assert_close(by_regions(photo, constant, (4.0, 7.0)), torch.full_like(refined, 0.25))


def test_a_threshold_may_join_as_a_class_or_be_taken_afterwards():
    photo, scores = patchwork(41, 70), torch.rand(2, 4, 7)
    joined = refine(
        "regions", photo, torch.cat([scores, torch.full_like(scores[:1], 0.6)]), (4.0, 7.0)
    )
    background = refine("regions", photo, scores, (4.0, 7.0)).amax(0) < 0.6
    assert 0.05 < background.float().mean() < 0.95
    assert ((joined.argmax(0) == 2) == background).float().mean() > 0.999


def test_classes_may_be_averaged_in_parts(monkeypatch):
    photo, scores = patchwork(41, 70), torch.rand(5, 4, 7)
    whole = by_regions(photo, scores, (4.0, 7.0))
    monkeypatch.setattr("maskfree.inference.region_refinement._BLOCK_CLASSES", 2)
    assert_close(by_regions(photo, scores, (4.0, 7.0)), whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (2, 3), (5, 17)])
def test_photos_of_any_size_have_regions(size):
    scores = torch.rand(2, 3, 4)
    refined = by_regions(patchwork(*size), scores, (1.5, 4.0))
    assert refined.shape == (2, *size)
    assert refined.isfinite().all()


def test_a_photo_of_one_color_is_one_region():
    scores = torch.rand(2, 3, 4)
    refined = by_regions(np.full((12, 20, 3), 90, np.uint8), scores, (3.0, 4.0))
    expected = enlarge(scores, (12, 20), (3.0, 4.0)).mean((1, 2), keepdim=True)
    assert_close(refined, expected.expand(-1, 12, 20))


def test_large_photos_are_reduced():
    refined = by_regions(patchwork(300, 1900), torch.rand(2, 3, 19), (3.0, 19.0))
    height, width = refined.shape[1:]
    assert abs(height * width / REGION_PIXELS - 1) < 0.01
    assert abs(width / height - 1900 / 300) < 0.05


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "higra", None)
    with pytest.raises(ValueError, match=r"needs higra: pip install 'maskfree\[regions\]'"):
        refine("regions", patchwork(9, 12), torch.rand(2, 3, 4), (3.0, 4.0))

"""Heads against K-means: what is measured of a grouping, and how heads begin."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.benchmarks.layouts import AnnotatedPhoto
from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.ops.ignore import IGNORE
from studies import vilseg_heads
from studies.vilseg_heads import Patches, Start, by_kmeans, centers, compared, trained, used


def clouds(count: int, spread: float = 0.05) -> torch.Tensor:
    """Points around COUNT directions, in turn."""
    generator = torch.Generator().manual_seed(0)
    middle = F.normalize(torch.randn(count, 18, generator=generator), dim=1)
    return middle.repeat(40, 1) + spread * torch.randn(40 * count, 18, generator=generator)


def test_a_grouping_is_measured_as_a_plain_loop_does():
    generator = torch.Generator().manual_seed(0)
    classes = F.normalize(torch.randn(4, 18, generator=generator), dim=1)
    patches = []
    for rows, columns in ((3, 5), (2, 7)):
        truth = torch.randint(0, 4, (rows, columns), generator=generator).numpy()
        truth[0, 0] = IGNORE
        patches.append(Patches(torch.randn(1, 18, rows, columns, generator=generator), truth))
    found = compared(patches, classes, lambda pixels: by_kmeans(pixels, 3))

    seen, right, inside = np.zeros((4, 4)), 0, []
    for photo in patches:
        groups = by_kmeans(photo.pixels, 3)[0].argmax(0)
        inside.append(len(groups.unique()))
        for group in groups.unique():
            region = photo.pixels[0][:, groups == group].mean(1)
            named = int((classes @ region).argmax())
            truths = [t for t in photo.truth[(groups == group).numpy()] if t != IGNORE]
            right += max(map(truths.count, set(truths)), default=0)
            for truth in truths:
                seen[truth, named] += 1
    union = seen.sum(0) + seen.sum(1) - np.diag(seen)
    iou = np.diag(seen)[union > 0] / union[union > 0]
    assert found["mean_iou"] == pytest.approx(iou.mean())
    assert found["named_by_truth"] == pytest.approx(right / seen.sum())
    assert found["regions"] == np.mean(inside)


def test_pixels_alone_are_named_rightly_by_their_truth():
    truth = np.array([[0, 1, 2], [1, 0, 2]])
    found = compared([Patches(torch.randn(1, 18, 2, 3), truth)], torch.randn(3, 18), None)
    assert (found["named_by_truth"], found["regions"]) == (1, 6)


def test_centers_are_those_of_patches_and_padding_is_ignored(tiny_vilseg, tiny_tokenizer):
    truth = np.zeros(
        (96, 130), np.uint8
    )  # resized to 48 x 65: 3 rows, and 4 columns of 16 and a rest
    truth[32:64, 64:96] = 1  # the middle row, the third column
    sample = AnnotatedPhoto("a", None, lambda: truth)
    segmenter = Segmenter(tiny_vilseg, tiny_tokenizer, inference=Inference(side_px=48))
    lookup = np.arange(256)
    found = centers(sample, lookup, segmenter, torch.zeros(1, 18, 3, 5))
    expected = np.zeros((3, 5), np.int64)
    expected[1, 2] = 1
    expected[:, 4] = IGNORE
    assert np.array_equal(found, expected)


def test_a_head_can_begin_as_the_nearest_centroid(monkeypatch):
    monkeypatch.setattr(vilseg_heads, "NUM_CLUSTERS", 6)
    points = clouds(6)
    head = trained(Start(steps=0, centroids=True), points, points, seed=0)
    labels = head(points.mT[None, :, :, None])[0, :, :, 0].argmax(0)
    assert len(labels[:6].unique()) == 6
    assert_close(labels, labels[:6].repeat(40))


def test_a_longer_training_shares_more(monkeypatch):
    monkeypatch.setattr(vilseg_heads, "NUM_CLUSTERS", 6)
    points, counts = clouds(6), []
    for steps in (0, 150):
        head = trained(Start(steps=steps), points, points, seed=0)
        counts.append(used(vilseg_heads.likeliest(head(points.mT[None, :, :, None]))))
        labels = head(points.mT[None, :, :, None])[0, :, :, 0].argmax(0)
    assert counts[1] >= 5
    assert (labels == labels[:6].repeat(40)).float().mean() > 0.95

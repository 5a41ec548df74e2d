import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.ops.kmeans import kmeans


def inertia(points: torch.Tensor, labels: torch.Tensor) -> float:
    return sum(
        float((points[labels == g] - points[labels == g].mean(0)).square().sum())
        for g in labels.unique()
    )


def blobs(number: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centers = 4 * torch.randn(number, dim, generator=generator)
    return torch.cat(
        [c + torch.randn(20 + 3 * i, dim, generator=generator) for i, c in enumerate(centers)]
    )


@pytest.mark.parametrize("num_clusters", [4, 7, 12])
def test_as_good_as_scikit_learn(num_clusters):
    """From one start each, on the mean over ten sets of points."""
    cluster = pytest.importorskip("sklearn.cluster")
    ours, peers = [], []
    for seed in range(10):
        points = blobs(7, 5, seed)
        ours.append(inertia(points, kmeans(points[None], num_clusters)[0][0]))
        peer = cluster.KMeans(num_clusters, n_init=1, random_state=0).fit(
            points.numpy().astype(np.float64)
        )
        peers.append(peer.inertia_)
    assert sum(ours) <= 1.02 * sum(peers)


def test_far_apart_groups_are_found():
    points = torch.cat([torch.randn(9, 4) + 100 * torch.eye(4)[i] for i in range(4)])
    labels = kmeans(points[None], 4)[0][0].view(4, 9)
    assert (labels == labels[:, :1]).all() and len(labels[:, 0].unique()) == 4


def test_labels_are_the_nearest_centroid_and_centroids_the_means():
    points = torch.stack([blobs(4, 3, seed) for seed in (0, 1)])
    labels, centroids = kmeans(points, 4, iterations=100)
    assert centroids.shape == (2, 4, 3) and labels.shape == points.shape[:2]
    assert torch.equal(labels, torch.cdist(points, centroids).argmin(2))
    for row in range(2):
        means = torch.stack([points[row][labels[row] == g].mean(0) for g in range(4)])
        assert_close(centroids[row], means, atol=1e-4, rtol=1e-4)


def test_a_photo_does_not_depend_on_its_batch():
    points = torch.stack([blobs(4, 3, seed) for seed in range(5)])
    together, _ = kmeans(points, 4)
    for row in range(5):
        assert torch.equal(kmeans(points[row : row + 1], 4)[0][0], together[row])


def test_spherical_ignores_lengths():
    points = blobs(5, 4, 0)
    lengths = torch.rand(len(points), 1) + 0.5
    plain, centroids = kmeans(points[None], 5, spherical=True)
    scaled, _ = kmeans((points * lengths)[None], 5, spherical=True)
    assert torch.equal(plain, scaled)
    assert_close(centroids.norm(dim=2), torch.ones(1, 5))
    assert torch.equal(plain, (F.normalize(points, dim=1)[None] @ centroids.mT).argmax(2))


def test_fewer_or_equal_points_than_clusters():
    points = torch.randn(2, 3, 4)
    labels, centroids = kmeans(points, 10)
    assert centroids.shape == (2, 3, 4)
    assert all(len(row.unique()) == 3 for row in labels)
    same = torch.ones(1, 6, 4)
    labels, centroids = kmeans(same, 3)
    assert torch.equal(centroids, torch.ones(1, 3, 4)) and len(labels.unique()) == 1

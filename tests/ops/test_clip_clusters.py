"""Clusters of a clip: their scores are those of all frames, and each word has its level."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.ops.clip_clusters import ClipClusters, split_in_two, word_levels

KINDS = F.normalize(torch.tensor([[1.0, 0.1, 0, 0], [0, 1, 0.2, 0], [0.1, 0, 1, 0]]), dim=1)


def frame(kinds: list[list[int]]) -> torch.Tensor:
    """Embeddings of cells of a few kinds."""
    return KINDS[torch.tensor(kinds)].permute(2, 0, 1)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("number", "words"), [(2, 1), (5, 3), (32, 4)])
def test_the_split_has_the_least_variance_within_its_parts(number: int, words: int):
    values = noise(0, number, words)
    low, high = split_in_two(values)
    for word in range(words):
        ordered = sorted(values[:, word].tolist())
        means = []
        for cut in range(1, number):
            parts = (torch.tensor(ordered[:cut]), torch.tensor(ordered[cut:]))
            within = sum(float((part - part.mean()).square().sum()) for part in parts)
            means.append((within, float(parts[0].mean()), float(parts[1].mean())))
        assert_close(low[word], torch.tensor(min(means)[1]))
        assert_close(high[word], torch.tensor(min(means)[2]))


def test_a_single_number_is_both_parts():
    low, high = split_in_two(torch.tensor([[0.3, -0.2]]))
    assert low.tolist() == high.tolist() == pytest.approx([0.3, -0.2])


def test_a_word_high_everywhere_has_a_high_level():
    values = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]])
    assert_close(word_levels(values), torch.tensor([0.7, 0.3]))
    assert (values - word_levels(values)).argmax(1).tolist() == [0, 1, 1]


def test_a_word_that_wins_nowhere_is_absent():
    """The more it misses its best cluster, against how far the usual word's two parts are apart."""
    values = torch.tensor([[0.9, 0.1, 0.3], [0.5, 0.6, 0.5], [0.5, 0.6, 0.5]])
    # Apart by .4, .5 and .2; the third misses by .1.
    share = 1 - 0.1 / (1.1 / 3)
    assert_close(word_levels(values), torch.tensor([0.7, 0.35, 0.7 + share * (0.4 - 0.7)]))
    values[:, 2] -= 0.4
    assert_close(word_levels(values), torch.tensor([0.7, 0.35, 0.7]))


def test_a_single_word_has_its_own_level():
    assert_close(word_levels(torch.tensor([[0.2], [0.6], [0.2]])), torch.tensor([0.4]))


def test_where_no_word_differs_the_scores_decide():
    values = torch.tensor([[0.2, 0.6], [0.2, 0.61], [0.21, 0.6]])
    assert ((values - word_levels(values)).argmax(1) == 1).all()


def slow_scores(frames, scores, weights, asked, number: int):
    """Scores of cells by clusters, point by point."""
    points: list[tuple] = []
    centers, mass = None, torch.empty(0)
    for cells, values, weight in zip(frames, scores, weights, strict=True):
        flat, given = cells.flatten(1).T, values.flatten(1).T
        count = len(flat)
        if centers is None:
            places = torch.linspace(0, count - 1, min(number, count)).round().long()
            centers = flat[places].clone()
        else:
            for index in mass.argsort()[:4].tolist():
                closest = [max(float(cell @ center) for center in centers) for cell in flat]
                centers[index] = flat[closest.index(min(closest))]
        points = [(point, value, m * (1 - weight)) for point, value, m in points]
        points = [*zip(flat, given, [weight / count] * count, strict=True), *points]
        for _ in range(10):
            sums = torch.zeros_like(centers)
            for point, _, m in points:
                sums[int((centers @ point).argmax())] += m * point
            for index, total in enumerate(sums):
                if total.norm() > 0:
                    centers[index] = total / total.norm()
        mass, means = torch.zeros(len(centers)), torch.zeros(len(centers), given.shape[1])
        for point, value, m in points:
            share = m * (centers @ point / 0.05).softmax(0)
            mass += share
            means += share[:, None] * value
        means /= mass[:, None]
        points = list(zip(centers.clone(), means, mass, strict=True))
    found = [(centers @ cell / 0.05).softmax(0) @ means for cell in asked.flatten(1).T]
    return torch.stack(found, 1).unflatten(1, asked.shape[1:])


@pytest.mark.parametrize(("height", "width"), [(5, 9), (11, 4), (1, 3)])
def test_scores_are_those_of_a_plain_loop(height: int, width: int):
    """With fewer cells than clusters too."""
    frames = [F.normalize(noise(seed, 6, height, width), dim=0) for seed in range(3)]
    scores = [noise(10 + seed, 2, height, width) for seed in range(3)]
    weights = [1.0, 0.5, 0.3]
    clusters = ClipClusters()
    for cells, values, weight in zip(frames, scores, weights, strict=True):
        clusters.add(cells, values, weight)
    asked = F.normalize(noise(9, 6, width, height), dim=0)
    expected = slow_scores(frames, scores, weights, asked, 32)
    assert_close(clusters.scores(asked, leveled=False), expected, atol=1e-4, rtol=1e-4)


def test_levels_are_taken_off_and_words_may_be_permuted():
    clusters, turned = ClipClusters(), ClipClusters()
    cells, scores = F.normalize(noise(0, 6, 7, 5), dim=0), noise(1, 3, 7, 5)
    clusters.add(cells, scores, 1.0)
    turned.add(cells, scores[[2, 0, 1]], 1.0)
    assert_close(turned.scores(cells), clusters.scores(cells)[[2, 0, 1]])

    taken = clusters.scores(cells, leveled=False) - clusters.scores(cells)
    assert_close(taken, taken[:, :1, :1].expand_as(taken))
    assert taken[:, 0, 0].unique().numel() > 1


def test_a_mistake_of_one_frame_dies():
    """Cells of one kind are named by all frames: two of three are right."""
    cells = frame([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    right = torch.stack([(cells[0] > 0.5) * 0.4 + 0.3, (cells[0] < 0.5) * 0.4])
    clusters = ClipClusters()
    for scores, weight in ((right.flip(0), 1.0), (right, 1 / 2), (right, 1 / 3)):
        clusters.add(cells, scores, weight)
    assert torch.equal(clusters.scores(cells).argmax(0), (cells[0] < 0.5).long())


def test_what_was_never_seen_gets_a_cluster():
    """All clusters of the first frame lie on one kind; a second kind keeps its own scores."""
    clusters = ClipClusters()
    plain = frame([[1] * 8] * 6)
    clusters.add(plain, torch.stack([torch.zeros(6, 8), torch.ones(6, 8)]), 1.0)
    mixed = frame([[1] * 8] * 5 + [[1] * 7 + [2]])
    scores = torch.stack([mixed[2] > 0.5, mixed[2] < 0.5]).float()
    clusters.add(mixed, scores, 0.5)
    assert_close(clusters.scores(mixed, leveled=False), scores, atol=1e-3, rtol=0)

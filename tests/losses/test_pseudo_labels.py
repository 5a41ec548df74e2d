import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from maskfree.losses.pseudo_labels import LEVELS, confidence, pixel_cross_entropy, thresholds
from maskfree.ops.ignore import IGNORE
from maskfree.ops.label_map import best_of_synonyms


def histogram(*classes: dict[int, int]) -> np.ndarray:
    counts = np.zeros((len(classes), LEVELS), np.int64)
    for row, pixels in zip(counts, classes, strict=True):
        for level, count in pixels.items():
            row[level] = count
    return counts


def test_confidence_rises_with_probability_and_tells_low_ones_apart():
    probabilities = np.array([[0, 1e-4, 0.005, 0.01, 0.02], [0.1, 0.3, 0.5, 0.9, 1]], np.float16)
    levels = confidence(probabilities)
    assert levels[0, 0] == 0 and levels[1, 4] == 255
    assert (np.diff(levels[:, 1:].ravel().astype(int)) > 0).all()
    assert levels[1, 2] == round(255 * (1 + math.log(0.5) / 8))


def test_each_class_keeps_its_share():
    counts = histogram({10: 50, 20: 30, 30: 20}, {5: 1, 6: 1, 7: 2}, {})
    assert thresholds(counts, keep=0.5, balance=1.0) == (20, 7, 255)
    assert thresholds(counts, keep=0.2, balance=1.0) == (30, 7, 255)
    assert thresholds(counts, keep=1.0, balance=1.0) == (10, 5, 255)


def test_one_threshold_for_all_drops_what_is_never_sure():
    counts = histogram({100: 60, 200: 40}, {50: 4})
    assert thresholds(counts, keep=0.3, balance=0.0) == (200, 200)
    assert thresholds(counts, keep=0.3, balance=1.0) == (200, 50)
    assert thresholds(counts, keep=0.3, balance=0.6) == (200, 110)


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.5, 0.99])
def test_at_least_the_share_passes_and_one_level_more_would_be_too_few(keep):
    counts = np.random.default_rng(0).integers(0, 9, (4, LEVELS))
    for row, least in zip(counts, thresholds(counts, keep, balance=1.0), strict=True):
        assert row[least:].sum() >= keep * row.sum() > row[least + 1 :].sum()


def test_a_class_is_its_best_phrase():
    scores = torch.tensor([1.0, 5.0, 2.0, 7.0, 3.0, 4.0]).view(1, 6, 1, 1).expand(2, 6, 3, 4)
    assert best_of_synonyms(scores, [2, 1, 3])[1, :, 2, 3].tolist() == [5, 2, 7]
    assert best_of_synonyms(scores, [1] * 6) is scores


def test_uninformed_pixels_cost_the_log_of_the_number_of_classes():
    labels = torch.randint(0, 7, (2, 8, 6), dtype=torch.uint8)
    assert_close(pixel_cross_entropy(torch.zeros(2, 7, 4, 3), labels), torch.tensor(math.log(7)))


def test_ignored_pixels_do_not_count():
    logits = torch.randn(2, 5, 8, 6)
    labels = torch.randint(0, 5, (2, 8, 6), dtype=torch.uint8)
    labels[0], labels[1, 3:] = IGNORE, IGNORE
    expected = -logits.log_softmax(1)[1, :, :3].gather(0, labels[1, None, :3].long()).mean()
    assert_close(pixel_cross_entropy(logits, labels), expected)


def test_without_labels_there_is_no_loss_but_a_gradient_of_zero():
    logits = torch.randn(2, 5, 4, 3, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((2, 8, 6), IGNORE, dtype=torch.uint8))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_autocast_does_not_change_the_loss():
    logits, labels = torch.randn(2, 5, 4, 3), torch.randint(0, 5, (2, 8, 6), dtype=torch.uint8)
    exact = pixel_cross_entropy(logits, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert pixel_cross_entropy(logits, labels) == exact

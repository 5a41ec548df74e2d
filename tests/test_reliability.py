from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfree.metrics import NUM_BINS, expected_error, reliability_counts


def plain_error(confidence: list[float], correct: list[bool]) -> float:
    """Gap of each bin, label by label; the last bin holds 1."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for value, right in zip(confidence, correct, strict=True):
        place = min(int(np.float32(value) * NUM_BINS), NUM_BINS - 1)
        bins.setdefault(place, []).append((value, right))

    error = 0.0
    for entries in bins.values():
        mean = sum(value for value, _ in entries) / len(entries)
        accuracy = sum(right for _, right in entries) / len(entries)
        error += len(entries) / len(confidence) * abs(mean - accuracy)
    return error


LABELS = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60)


@given(LABELS)
def test_error_is_the_mean_gap_between_confidence_and_accuracy(labels: list[tuple[float, bool]]):
    confidence, correct = zip(*labels, strict=True)
    counts = reliability_counts(np.array(confidence, np.float32), np.array(correct))
    assert counts.shape == (15, 3)
    assert counts[:, 0].sum() == len(labels)
    assert expected_error(counts) == pytest.approx(plain_error(confidence, correct), abs=1e-6)


@given(LABELS, LABELS)
def test_counts_add_up(some: list[tuple[float, bool]], more: list[tuple[float, bool]]):
    def counted(labels: list[tuple[float, bool]]) -> np.ndarray:
        confidence, correct = zip(*labels, strict=True)
        return reliability_counts(np.array(confidence, np.float16), np.array(correct))

    np.testing.assert_allclose(counted(some + more), counted(some) + counted(more))


@given(LABELS)
def test_numbers_of_16_bits_are_counted_as_others(labels: list[tuple[float, bool]]):
    confidence, correct = (np.array(column) for column in zip(*labels, strict=True))
    half = confidence.astype(np.float16)
    expected = reliability_counts(half.astype(np.float32), correct)
    np.testing.assert_array_equal(reliability_counts(half, correct), expected)


def test_known_errors():
    sure = np.ones((2, 5))
    assert expected_error(reliability_counts(sure, sure > 0)) == 0
    assert expected_error(reliability_counts(sure, sure < 0)) == 1
    half = np.full((2, 5), 0.75)
    right = np.arange(10).reshape(2, 5) < 5
    assert expected_error(reliability_counts(half, right)) == pytest.approx(0.25)
    assert np.isnan(expected_error(np.zeros((15, 3))))

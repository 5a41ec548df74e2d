"""Gaussian blur by band matrices."""

from __future__ import annotations

import numpy as np
import pytest

from maskfree.regions.gaussian import gaussian_blur, gaussian_matrix

filters = pytest.importorskip("scipy.ndimage")


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 70), (65, 32), (40, 1)])
@pytest.mark.parametrize("sigma", [0.7, 1.5, 5.0])
def test_it_is_scipys_filter(size: tuple[int, int], sigma: float):
    maps = np.random.default_rng(0).random((3, *size), np.float32)
    expected = filters.gaussian_filter(maps, (0, sigma, sigma), mode="nearest", truncate=2)
    np.testing.assert_allclose(gaussian_blur(maps, sigma, truncate=2), expected, atol=1e-6)


def test_the_matrix_blurs_a_line_and_keeps_its_ends():
    line = np.random.default_rng(1).random(16, np.float32)
    matrix = gaussian_matrix(16, 0.8, truncate=2.5)
    expected = filters.gaussian_filter1d(line, 0.8, mode="nearest", truncate=2.5)
    np.testing.assert_allclose(matrix @ line, expected, atol=1e-6)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)

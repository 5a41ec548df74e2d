from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskfree.ops.confidence_map import confidence_map, spread
from maskfree.ops.label_map import enlarge, label_map


def scores_of(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def plainly(scores: torch.Tensor, temperature: float, size, extent, none=None) -> np.ndarray:
    """Softmax of the scores enlarged to every pixel."""
    rows, columns = (int(side) for side in extent)
    kept = scores[:, :rows, :columns]
    logits = F.interpolate(kept[None], size, mode="bilinear")[0] / temperature
    if none is not None:
        logits = torch.cat([logits, torch.full_like(logits[:1], none / temperature)])
    return logits.softmax(0)[: len(scores)].amax(0).numpy()


@pytest.mark.parametrize("none", [None, -0.3, 0.7])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("size", [(24, 40), (40, 80), (7, 5)])
def test_it_is_the_softmax_of_the_enlarged_scores(temperature: float, none, size):
    scores, extent = scores_of(4, 5, 10), (5.0, 10.0)
    found = confidence_map(scores, temperature=temperature, none=none, size=size, extent=extent)
    assert found.shape == size and found.dtype == np.float16
    # Up to eight cells per patch all is computed at the pixels themselves.
    expected = plainly(scores, temperature, size, extent, none)
    np.testing.assert_allclose(found, expected, atol=6e-4)


def test_on_larger_photos_it_is_close_to_that():
    scores = scores_of(6, 9, 7)
    found = confidence_map(scores, temperature=1.5, size=(400, 301), extent=(9.0, 7.0))
    expected = plainly(scores, 1.5, (400, 301), (9.0, 7.0))
    # Most at the ridges where two classes meet, which a coarse map rounds off.
    assert np.abs(found - expected).max() < 0.08
    assert np.abs(found - expected).mean() < 0.003


@pytest.mark.parametrize("none", [None, 0.4])
@pytest.mark.parametrize(
    ("classes", "size", "extent"),
    [
        (300, (400, 301), (8.6, 7.3)),  # several strips, cells that lie askew to the patches
        (5, (400, 301), (8.6, 7.3)),
        (4, (31, 97), (9.0, 7.2)),  # cells are pixels on one side only
        (2, (64, 3), (9.0, 9.0)),  # fewer pixels than patches
        (3, (50, 40), (0.7, 1.0)),  # less than a patch
    ],
)
def test_it_equals_a_softmax_cell_by_cell(classes: int, size, extent, none: float | None):
    scores, temperature = scores_of(classes, 9, 9) / 2, 0.1
    found = confidence_map(
        scores, temperature=temperature, none=none, size=size, extent=extent
    ).astype(np.float32)

    cells = [
        min(pixels, max(1, round(8 * covered)))
        for pixels, covered in zip(size, extent, strict=True)
    ]
    logits = enlarge(scores, (cells[0], cells[1]), extent)
    if none is not None:
        logits = torch.cat([logits, torch.full_like(logits[:1], none)])
    likely = (logits / temperature).softmax(0)[:classes].amax(0)
    # One step of a 16-bit float at most.
    np.testing.assert_allclose(found, spread(likely, size).astype(np.float32), atol=5e-4)


def test_a_temperature_close_to_zero_is_certainty():
    found = confidence_map(scores_of(7, 5, 6), temperature=1e-4, size=(80, 96), extent=(5.0, 6.0))
    assert (found >= 1 / 7).all() and (found <= 1).all()
    assert (found > 0.99).mean() > 0.8


def test_padding_has_no_influence():
    scores = scores_of(3, 4, 6)
    padded = torch.cat([scores, 99 * torch.rand(3, 2, 6)], dim=1)
    extent, size = (3.5, 6.0), (28, 48)
    inside, outside = (
        confidence_map(each, temperature=1.0, size=size, extent=extent) for each in (scores, padded)
    )
    assert (inside == outside).all()


def test_order_of_classes_and_a_shift_do_not_matter():
    scores = scores_of(5, 3, 4)
    usual = confidence_map(scores, temperature=0.7, size=(20, 30), extent=(3.0, 4.0))
    for other in (scores[[3, 1, 0, 4, 2]], scores + 2):
        found = confidence_map(other, temperature=0.7, size=(20, 30), extent=(3.0, 4.0))
        np.testing.assert_allclose(found, usual, atol=1e-3)


def test_a_class_alone_is_certain_unless_none_competes():
    scores = torch.full((1, 3, 4), 0.2)
    size, extent = (6, 9), (3.0, 4.0)
    assert (confidence_map(scores, temperature=0.1, size=size, extent=extent) == 1).all()
    half = confidence_map(scores, temperature=0.1, none=0.2, size=size, extent=extent)
    np.testing.assert_allclose(half, 0.5, atol=1e-3)


def test_the_probability_is_that_of_the_label():
    """Where one class wins by far, the confidence is high; at the border, it is a half."""
    scores = torch.zeros(2, 4, 8)
    scores[0, :, :4] = scores[1, :, 4:] = 1
    found = confidence_map(scores, temperature=0.2, size=(32, 64), extent=(4.0, 8.0))
    labels, _ = label_map(scores, size=(32, 64), extent=(4.0, 8.0))
    assert (labels[:, :32] == 0).all() and (labels[:, 32:] == 1).all()
    assert found[:, 31:33].max() < 0.8
    assert found[:, [0, 63]].min() > 0.99


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (37, 11)])
def test_a_map_is_spread_bilinearly(size: tuple[int, int]):
    cells = scores_of(6, 5)
    expected = F.interpolate(cells[None, None], size, mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(spread(cells, size), expected, atol=2e-3)

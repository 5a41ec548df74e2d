from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskfree.ops.label_map import label_map


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (28, 38), (101, 57), (640, 211)])
@pytest.mark.parametrize("shape", [(1, 3, 4), (5, 1, 1), (5, 3, 1), (21, 6, 9), (300, 4, 5)])
def test_agrees_with_interpolation_and_arg_max(shape: tuple[int, int, int], size: tuple[int, int]):
    scores = torch.rand(shape) * 2 - 1
    labels, best = label_map(scores, size=size, extent=(float(shape[1]), float(shape[2])))
    enlarged = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    assert labels.shape == best.shape == size
    assert labels.dtype == (np.uint8 if shape[0] <= 256 else np.uint16)
    np.testing.assert_allclose(best, enlarged.amax(0).numpy(), atol=1e-3)
    picked = enlarged.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    torch.testing.assert_close(
        picked, enlarged.amax(0), atol=1e-5, rtol=0
    )  # ties may go either way


def test_smooth_scores_keep_all_winners():
    scores = F.interpolate(torch.randn(1, 12, 3, 4), (30, 41), mode="bicubic")[0]
    labels, _ = label_map(scores, size=(233, 301), extent=(30.0, 41.0))
    enlarged = F.interpolate(scores[None], (233, 301), mode="bilinear", align_corners=False)[0]
    assert np.mean(labels != enlarged.argmax(0).numpy()) < 1e-4


def test_part_of_a_patch_is_padding():
    # 2.5 patches of 16 px are 40 px; padded to 48 px, the photo's pixels still lie where they lay.
    scores = torch.randn(4, 3, 3)
    whole, _ = label_map(scores, size=(48, 48), extent=(3.0, 3.0))
    cut, _ = label_map(scores, size=(40, 40), extent=(2.5, 2.5))
    assert np.array_equal(cut, whole[:40, :40])

"""Sliding windows over photos: where they lie, and averaging their scores where they overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskfree.inference.config import Inference
from maskfree.ops.window_starts import window_starts


class Window(NamedTuple):
    """A rectangle of a photo's patches."""

    photo: int
    """Index of the photo."""
    top: int
    """First row of patches."""
    left: int
    """First column of patches."""
    height: int
    """Rows of patches."""
    width: int
    """Columns of patches."""

    def place(self, unit: int = 1) -> tuple[slice, slice]:
        """Return the slices of rows and columns that the window covers.

        Args:
            unit: Cells per patch; with the patch size in pixels, the slices are in pixels.

        Returns:
            Slices of rows and of columns.
        """
        bottom, right = self.top + self.height, self.left + self.width
        return slice(self.top * unit, bottom * unit), slice(self.left * unit, right * unit)


def sliding_windows(
    photo: int, height: int, width: int, patch_size: int, inference: Inference
) -> list[Window]:
    """Cover a photo with windows: sliding ones, or a single one if the photo is small enough.

    Args:
        photo: Index of the photo.
        height: Rows of patches of the photo.
        width: Columns of patches of the photo.
        patch_size: Side of a patch in pixels.
        inference: Inference settings, which hold the sizes in pixels.

    Returns:
        Windows that cover all patches, row by row.
    """
    max_whole = max(1, inference.max_whole_px // patch_size)
    if height <= max_whole and width <= max_whole:
        return [Window(photo, 0, 0, height, width)]

    # Window and stride in whole patches.
    window = max(1, round(inference.window_px / patch_size))
    stride = max(1, round(inference.stride_px / patch_size))

    return [
        Window(photo, top, left, min(window, height), min(window, width))
        for top in window_starts(height, window, stride)
        for left in window_starts(width, window, stride)
    ]


def score_windows(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    score: Callable[[Sequence[UInt8[np.ndarray, "hs ws 3"]]], Float[Tensor, "b p hc wc"]],
    *,
    num_scores: int,
    patch_size: int,
    cells_per_patch: int,
    inference: Inference,
) -> list[Float[Tensor, "p hc wc"]]:
    """Score images by windows in batches of equal size, and average where windows overlap.

    Args:
        images: RGB images whose sides are multiples of the patch size.
        score: Scores a batch of crops of equal size.
        num_scores: Number p of scores per cell.
        patch_size: Side of a patch in pixels.
        cells_per_patch: Cells of the score map along a side of a patch.
        inference: Inference settings: windows and batch size.

    Returns:
        Score map of each image.
    """
    sums, visits = [], []
    by_size: dict[tuple[int, int], list[Window]] = defaultdict(list)

    # Collect the windows of all photos by size.
    for index, image in enumerate(images):
        height, width = image.shape[0] // patch_size, image.shape[1] // patch_size
        sums.append(torch.zeros(num_scores, height * cells_per_patch, width * cells_per_patch))
        visits.append(torch.zeros(sums[-1].shape[1:]))

        for window in sliding_windows(index, height, width, patch_size, inference):
            by_size[window.height, window.width].append(window)

    # Score windows of equal size in batches and add up their scores.
    for windows in by_size.values():
        for start in range(0, len(windows), inference.batch_size):
            batch = windows[start : start + inference.batch_size]
            crops = [images[window.photo][window.place(patch_size)] for window in batch]

            for window, scores in zip(batch, score(crops), strict=True):
                down, across = window.place(cells_per_patch)
                sums[window.photo][:, down, across] += scores
                visits[window.photo][down, across] += 1

    return [total / count for total, count in zip(sums, visits, strict=True)]

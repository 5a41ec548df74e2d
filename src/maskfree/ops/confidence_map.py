"""Confidence maps: how probable the best class of each pixel is."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from maskfree.ops.label_map import enlarge, neighbors

# Cells along a side of a patch at which probabilities are computed: between them they are close to
# linear, and a photo has many more pixels.
_CELLS_PER_PATCH = 8
# Pixels processed at once: few enough to stay in a core's cache.
_BLOCK_PIXELS = 2**16


def confidence_map(
    scores: Float[Tensor, "k hp wp"],
    *,
    temperature: float,
    none: float | None = None,
    size: tuple[int, int],
    extent: tuple[float, float],
) -> Float16[np.ndarray, "h w"]:
    """Return the probability of the best class of each pixel, by a softmax over the classes.

    Scores are enlarged bilinearly to eight cells per patch, where the softmax is taken; its maximum
    is enlarged bilinearly to the pixels.

    Args:
        scores: Score of each class on the patch grid.
        temperature: Difference of scores that makes one class e times as probable; positive.
        none: Score of one more class that never wins, for pixels that show none of the classes;
            None for no such class.
        size: Height and width of the result in pixels.
        extent: Patches down and across that the photo covers; the rest is padding.

    Returns:
        Probabilities in [0, 1].
    """
    cells = [
        min(pixels, max(1, round(covered * _CELLS_PER_PATCH)))
        for pixels, covered in zip(size, extent, strict=True)
    ]
    logits = enlarge(scores, (cells[0], cells[1]), extent) / temperature

    total = logits.logsumexp(0)
    if none is not None:
        total = torch.logaddexp(total, total.new_tensor(none / temperature))
    return spread((logits.amax(0) - total).exp(), size)


def spread(cells: Float[Tensor, "hc wc"], size: tuple[int, int]) -> Float16[np.ndarray, "h w"]:
    """Enlarge a map bilinearly to pixels, without more memory than the result.

    Args:
        cells: Values that cover the photo evenly.
        size: Height and width of the result in pixels.

    Returns:
        Value of each pixel.
    """
    height, width = size
    above, below, down = neighbors(height, float(cells.shape[0]), cells.shape[0])
    left, right, across = neighbors(width, float(cells.shape[1]), cells.shape[1])
    values = torch.empty(height, width, dtype=torch.float16)
    step = max(1, _BLOCK_PIXELS // width)

    for top in range(0, height, step):
        lines = slice(top, top + step)
        ends = torch.lerp(cells[above[lines]], cells[below[lines]], down[lines, None])
        values[lines] = torch.lerp(ends[:, left], ends[:, right], across)

    return values.numpy()

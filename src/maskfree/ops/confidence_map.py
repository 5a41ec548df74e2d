"""Confidence maps: how probable the best class of each pixel is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64
from torch import Tensor

from maskfree.ops.label_map import neighbors

# Cells along a side of a patch at which probabilities are computed: between them they are close to
# linear, and a photo has many more pixels.
_CELLS_PER_PATCH = 8
# Pixels processed at once: few enough to stay in a core's cache.
_BLOCK_PIXELS = 2**16
# Nats below the best class of a patch down to which a class is told apart there: further down its
# share is 1e-35, close to the smallest float.
_MAX_NATS = 80.0


class _Runs(NamedTuple):
    """Cells along an axis, grouped into runs of equal steps between two patches."""

    before: Int64[Tensor, " r"]
    """Patch before each run."""
    after: Int64[Tensor, " r"]
    """Patch after it; the same one where the run stands still, at the border."""
    start: Float[Tensor, " r"]
    """Interpolation weight of the latter at the first cell."""
    step: float
    """Patches from a cell to the next."""
    length: int
    """Cells of the longest run."""
    run: Int64[Tensor, " n"]
    """Run of each cell."""
    place: Int64[Tensor, " n"]
    """Place of each cell in its run."""


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
    logits = scores / temperature
    if none is not None:
        logits = torch.cat([logits, torch.full_like(logits[:1], none / temperature)])
    # A softmax does not change where all classes lose the same.
    logits = (logits - logits.amax(0)).clamp_min_(-_MAX_NATS)

    down = _runs(cells[0], extent[0], scores.shape[1])
    across = _runs(cells[1], extent[1], scores.shape[2])
    shape = (down.length, across.length, len(down.before), len(across.before))
    best, total = torch.empty(shape), torch.empty(shape)
    step = max(1, 2 * _BLOCK_PIXELS // (len(logits) * shape[3]))

    for top in range(0, shape[2], step):
        runs = slice(top, top + step)
        lines = down._replace(
            before=down.before[runs], after=down.after[runs], start=down.start[runs]
        )
        _sum_exponentials(logits, len(scores), lines, across, best[:, :, runs], total[:, :, runs])

    likely = (best / total)[down.place[:, None], across.place, down.run[:, None], across.run]
    return spread(likely, size)


def _runs(num_cells: int, extent: float, num_patches: int) -> _Runs:
    """Group the cells along an axis by the patches between whose centers they lie."""
    before, after, weight = neighbors(num_cells, extent, num_patches)

    # Before the first center all cells have its value.
    is_border = (before == 0) & (weight == 0)
    after = torch.where(is_border, before, after)
    _, run, counts = torch.unique_consecutive(
        torch.where(is_border, -1, before), return_inverse=True, return_counts=True
    )

    first = counts.cumsum(0) - counts
    return _Runs(
        before[first],
        after[first],
        weight[first],
        step=extent / num_cells,
        length=int(counts.max()),
        run=run,
        place=torch.arange(num_cells) - first[run],
    )


def _sum_exponentials(
    logits: Float[Tensor, "k hp wp"],
    num_classes: int,
    down: _Runs,
    across: _Runs,
    best: Float[Tensor, "i j rd ra"],
    total: Float[Tensor, "i j rd ra"],
) -> None:
    """Write the largest exponential of the classes and the sum of all at each cell.

    From cell to cell of a run a logit changes by equal steps, so that its exponential is multiplied
    by equal factors: four exponentials are taken for all cells between four patches.
    """

    def ends(rows: Int64[Tensor, " rd"]) -> tuple[Tensor, Tensor]:
        """Logits at the first cells of runs across, and their change from cell to cell."""
        chosen = logits[:, rows].numpy()
        # NumPy picks columns several times as fast as torch.
        left, right = (
            torch.from_numpy(chosen.take(side.numpy(), axis=2))
            for side in (across.before, across.after)
        )
        return torch.lerp(left, right, across.start), (right - left).mul_(across.step)

    (upper, upper_step), (lower, lower_step) = ends(down.before), ends(down.after)
    weight = down.start[:, None]
    value = torch.lerp(upper, lower, weight).exp_()
    to_right = torch.lerp(upper_step, lower_step, weight).exp_()
    downwards = (lower - upper).mul_(down.step).exp_()
    to_right_downwards = (lower_step - upper_step).mul_(down.step).exp_()

    for line in range(down.length):
        current = value.clone()
        for column in range(across.length):
            torch.amax(current[:num_classes], 0, out=best[line, column])
            torch.sum(current, 0, out=total[line, column])
            current *= to_right
        value *= downwards
        to_right *= to_right_downwards


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

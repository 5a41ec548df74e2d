"""The label map: scores of patches, enlarged to pixels, and the class that wins at each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64, UInt
from torch import Tensor

_BLOCK_PIXELS = 2**16  # worked on at once: few enough to stay in a core's cache


def label_map(
    scores: Float[Tensor, "k hp wp"], *, size: tuple[int, int], extent: tuple[float, float]
) -> tuple[UInt[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
    """Enlarge SCORES bilinearly to SIZE (height, width) and return the best class of each pixel with its score.

    EXTENT is how many patches down and across the photo covers; what lies beyond is padding. Equal to
    `interpolate(mode="bilinear", align_corners=False)` and arg-max where the extent is whole, but made band by band
    between two rows of patches: it never holds more than the result, and skips classes that cannot win in a band.
    """
    (height, width), (_, rows, _) = size, scores.shape
    left, right, across = _neighbours(width, extent[1], scores.shape[2])
    above, _, down = _neighbours(height, extent[0], rows)
    labels = torch.zeros(height, width, dtype=torch.uint8 if len(scores) <= 256 else torch.int16)
    best = torch.empty(height, width, dtype=torch.float16)
    bands, num_lines = torch.unique_consecutive(above, return_counts=True)
    start = 0
    for row, stop in zip(bands.tolist(), (num_lines.cumsum(0)).tolist(), strict=True):
        pair = scores[:, [row, min(row + 1, rows - 1)]]
        possible = _possible(pair)
        pair = pair[possible]
        ends = torch.lerp(pair[:, :, left], pair[:, :, right], across)  # k 2 w
        certain = ends.amin(1).amax(0)  # some class has at least this score, wherever in the band
        kept = (ends.amax(1) >= certain).any(1)
        ends, candidates = ends[kept], possible[kept].tolist()
        for top in range(start, stop, max(1, _BLOCK_PIXELS // width)):
            bottom = min(top + max(1, _BLOCK_PIXELS // width), stop)
            _fill(labels[top:bottom], best[top:bottom], ends, candidates, down[top:bottom, None])
        start = stop
    ids = labels.numpy()
    return (ids if len(scores) <= 256 else ids.astype(np.uint16)), best.numpy()


def softmax_map(
    scores: Float[Tensor, "p hp wp"],
    class_of: Sequence[int],
    *,
    logit_scale: float,
    size: tuple[int, int],
    extent: tuple[float, float],
) -> tuple[UInt[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
    """Enlarge the scores of phrases, take a softmax over them at each pixel, and return the best one's class.

    CLASS_OF tells each phrase's class, so that a class scores as the best of its synonyms; beside the class comes the
    probability of that phrase. SIZE and EXTENT are as for `label_map`.
    """
    (height, width), (_, rows, columns) = size, scores.shape
    left, right, across = _neighbours(width, extent[1], columns)
    above, below, down = _neighbours(height, extent[0], rows)
    classes = torch.tensor(class_of, dtype=torch.int32)
    labels = torch.empty(height, width, dtype=torch.int32)
    best = torch.empty(height, width, dtype=torch.float16)
    step = max(1, 8 * _BLOCK_PIXELS // (width * len(scores)))
    for top in range(0, height, step):
        lines = slice(top, top + step)
        ends = torch.lerp(
            scores[:, above[lines]], scores[:, below[lines]], down[lines, None]
        )  # p h wp
        logits = torch.lerp(ends[:, :, left], ends[:, :, right], across).mul_(logit_scale)
        highest, phrase = logits.max(0)
        best[lines] = (highest - logits.logsumexp(0)).exp_()
        labels[lines] = classes[phrase]
    return labels.numpy().astype(np.uint8 if max(class_of) < 256 else np.uint16), best.numpy()


def _neighbours(num_pixels: int, extent: float, num_patches: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel's center: the patch before it, the one after it, and how far it lies towards the latter."""
    centers = (torch.arange(num_pixels, dtype=torch.float64) + 0.5) * (extent / num_pixels) - 0.5
    centers = centers.clamp(0, num_patches - 1)
    before = centers.long()
    return before, (before + 1).clamp(max=num_patches - 1), (centers - before).float()


def _possible(pair: Float[Tensor, "k 2 wp"]) -> Int64[Tensor, " n"]:
    """Classes that may win somewhere between two rows of patches: between four patches no score leaves their range."""
    low, high = pair.amin(1), pair.amax(1)
    following = torch.arange(1, pair.shape[2] + 1).clamp(max=pair.shape[2] - 1)
    certain = torch.minimum(low, low[:, following]).amax(
        0
    )  # some class has at least this score in the cell
    return (torch.maximum(high, high[:, following]) >= certain).any(1).nonzero()[:, 0]


def _fill(labels: Tensor, best: Tensor, ends: Tensor, candidates: list[int], down: Tensor) -> None:
    """Write the winner among CANDIDATES, whose ENDS are given, and its score for lines at DOWN between the ends."""
    change = ends[:, 1] - ends[:, 0]
    highest = torch.addcmul(ends[0, 0], change[0], down)
    labels.fill_(candidates[0])  # they ascend
    score, wins = torch.empty_like(highest), torch.empty(highest.shape, dtype=torch.bool)
    for place, index in enumerate(candidates[1:], 1):
        torch.addcmul(ends[place, 0], change[place], down, out=score)
        torch.gt(score, highest, out=wins)
        # A later winner has the larger id; this is faster than masked_fill_.
        torch.maximum(labels, wins.to(labels.dtype).mul_(index), out=labels)
        torch.maximum(highest, score, out=highest)
    best.copy_(highest)

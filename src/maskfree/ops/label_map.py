"""Label maps: patch scores are enlarged bilinearly to pixels and the best class is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float16, Int64, UInt
from torch import Tensor

# Pixels processed at once: few enough to stay in a core's cache.
_BLOCK_PIXELS = 2**16


def best_of_synonyms(
    scores: Float[Tensor, "b p hp wp"], synonyms: Sequence[int]
) -> Float[Tensor, "b k hp wp"]:
    """Maximum score over the synonyms of each class.

    Args:
        scores: Score of each phrase; the synonyms of a class follow one another.
        synonyms: Number of phrases of each class, in order; they sum to p.

    Returns:
        Score of each class.
    """
    if max(synonyms) == 1:
        return scores
    return torch.cat(
        [part.amax(1, keepdim=True) for part in scores.split(list(synonyms), dim=1)], dim=1
    )


def mean_of_synonyms(
    scores: Float[Tensor, "b p hp wp"], synonyms: Sequence[int]
) -> Float[Tensor, "b k hp wp"]:
    """Mean score over the synonyms of each class.

    Args:
        scores: Score of each phrase; the synonyms of a class follow one another.
        synonyms: Number of phrases of each class, in order; they sum to p.

    Returns:
        Score of each class.
    """
    parts = scores.split(list(synonyms), dim=1)
    return torch.cat([part.mean(1, keepdim=True) for part in parts], dim=1)


def vote_of_synonyms(
    scores: Float[Tensor, "b p hp wp"], synonyms: Sequence[int], logit_scale: float
) -> Float[Tensor, "b k hp wp"]:
    """Soft vote of the synonyms of each class: the mean of their softmax probabilities, as a score.

    A class with more synonyms has no more weight. The score lies between their mean and maximum.

    Args:
        scores: Cosine of each phrase; the synonyms of a class follow one another.
        synonyms: Number of phrases of each class, in order; they sum to p.
        logit_scale: Factor on the cosines before the softmax.

    Returns:
        Score of each class, on the scale of the cosines.
    """
    voted = []
    for part in scores.split(list(synonyms), dim=1):
        total = (logit_scale * part).logsumexp(1, keepdim=True)
        voted.append((total - math.log(part.shape[1])) / logit_scale)
    return torch.cat(voted, dim=1)


def label_map(
    scores: Float[Tensor, "k hp wp"], *, size: tuple[int, int], extent: tuple[float, float]
) -> tuple[UInt[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
    """Enlarge scores bilinearly and return the best class of each pixel.

    Equal to `interpolate(mode="bilinear", align_corners=False)` and arg-max where the extent is
    whole. It works in bands between two rows of patches, so it never holds more than the result,
    and skips classes that cannot win in a band.

    Args:
        scores: Score of each class on the patch grid.
        size: Height and width of the result in pixels.
        extent: Patches down and across that the photo covers; the rest is padding.

    Returns:
        Class of each pixel, and its score.
    """
    (height, width), (_, rows, _) = size, scores.shape
    left, right, across = neighbors(width, extent[1], scores.shape[2])
    above, _, down = neighbors(height, extent[0], rows)
    # Of more classes than a byte holds, the ids are 16 bits.
    is_wide = len(scores) > 256
    dtype = torch.uint8
    if is_wide:
        dtype = torch.int16

    labels = torch.zeros(height, width, dtype=dtype)
    best = torch.empty(height, width, dtype=torch.float16)
    bands, num_lines = torch.unique_consecutive(above, return_counts=True)
    stops = num_lines.cumsum(0).tolist()
    # Classes that cannot win between two rows of patches are dropped there.
    candidates_of = _possible(scores, bands.tolist())
    start = 0

    for row, stop, possible in zip(bands.tolist(), stops, candidates_of, strict=True):
        pair = scores[possible][:, [row, min(row + 1, rows - 1)]]

        # Interpolate across first: then a band is linear from one row to the other.
        # NumPy picks columns several times as fast as torch.
        before, after = (
            torch.from_numpy(pair.numpy().take(side.numpy(), axis=2)) for side in (left, right)
        )
        ends = torch.lerp(before, after, across)  # k 2 w
        # Some class has at least this score, wherever in the band.
        certain = ends.amin(1).amax(0)
        kept = (ends.amax(1) >= certain).any(1)
        ends, candidates = ends[kept], possible[kept].tolist()

        for top in range(start, stop, max(1, _BLOCK_PIXELS // width)):
            bottom = min(top + max(1, _BLOCK_PIXELS // width), stop)
            _fill(labels[top:bottom], best[top:bottom], ends, candidates, down[top:bottom, None])
        start = stop

    ids = labels.numpy()
    if is_wide:
        ids = ids.astype(np.uint16)
    return ids, best.numpy()


def enlarge(
    scores: Float[Tensor, "k hp wp"], size: tuple[int, int], extent: tuple[float, float]
) -> Float[Tensor, "k h w"]:
    """Sample the covered part of a score map bilinearly at cell centers, as `label_map` does.

    Args:
        scores: Score of each class on the patch grid.
        size: Height and width of the result in cells.
        extent: Patches down and across that the photo covers; the rest is padding.

    Returns:
        Score of each class at the cells.
    """
    # -1 and 1 are the outer edges of the map
    down, across = (
        (torch.arange(cells) + 0.5) * (2 * covered / cells / patches) - 1
        for cells, covered, patches in zip(size, extent, scores.shape[1:], strict=True)
    )
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
    return F.grid_sample(
        scores[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]


def softmax_map(
    scores: Float[Tensor, "p hp wp"],
    class_of: Sequence[int],
    *,
    logit_scale: float,
    size: tuple[int, int],
    extent: tuple[float, float],
) -> tuple[UInt[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
    """Enlarge phrase scores bilinearly, take a softmax over the phrases and return the best class.

    A class scores as the best of its synonyms.

    Args:
        scores: Cosine of each phrase on the patch grid.
        class_of: Class of each phrase.
        logit_scale: Factor on the cosines before the softmax.
        size: Height and width of the result in pixels.
        extent: Patches down and across that the photo covers; the rest is padding.

    Returns:
        Class of each pixel, and the probability of its best phrase.
    """
    (height, width), (_, rows, columns) = size, scores.shape
    left, right, across = neighbors(width, extent[1], columns)
    above, below, down = neighbors(height, extent[0], rows)

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

        # Probability of the best phrase, without the whole softmax.
        highest, phrase = logits.max(0)
        best[lines] = (highest - logits.logsumexp(0)).exp_()
        labels[lines] = classes[phrase]

    dtype = np.uint8
    if max(class_of) >= 256:
        dtype = np.uint16
    return labels.numpy().astype(dtype), best.numpy()


def neighbors(num_pixels: int, extent: float, num_patches: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the patches between whose centers each pixel center lies.

    Args:
        num_pixels: Pixels along a side.
        extent: Patches that the pixels cover.
        num_patches: Patches of the score map along that side.

    Returns:
        Patch before and after each pixel center, and the interpolation weight of the latter.
    """
    centers = (torch.arange(num_pixels, dtype=torch.float64) + 0.5) * (extent / num_pixels) - 0.5
    centers = centers.clamp(0, num_patches - 1)
    before = centers.long()
    return before, (before + 1).clamp(max=num_patches - 1), (centers - before).float()


def _possible(scores: Float[Tensor, "k hp wp"], rows: list[int]) -> list[Int64[Tensor, " n"]]:
    """Classes that may win between each of these rows of patches and the next one, where scores
    stay in the patches' range.
    """
    possible: list[Tensor] = []
    step = max(1, 2 * _BLOCK_PIXELS // scores[:, 0].numel())
    following = torch.arange(1, scores.shape[2] + 1).clamp(max=scores.shape[2] - 1)

    for start in range(0, len(rows), step):
        above = torch.tensor(rows[start : start + step])
        upper, lower = scores[:, above], scores[:, (above + 1).clamp(max=scores.shape[1] - 1)]
        low, high = torch.minimum(upper, lower), torch.maximum(upper, lower)
        # Some class has at least this score in the cell.
        certain = torch.minimum(low, low[:, :, following]).amax(0)
        wins = (torch.maximum(high, high[:, :, following]) >= certain).any(2)  # k rows
        possible += [band.nonzero()[:, 0] for band in wins.T]
    return possible


def _fill(labels: Tensor, best: Tensor, ends: Tensor, candidates: list[int], down: Tensor) -> None:
    """Write the winning candidate and its score for lines between two rows of patches."""
    change = ends[:, 1] - ends[:, 0]
    highest = torch.addcmul(ends[0, 0], change[0], down)
    # Candidates are in ascending order.
    labels.fill_(candidates[0])
    score = torch.empty_like(highest)
    wins = np.empty(highest.shape, np.bool_)

    # The same memory as arrays, on which NumPy is several times as fast as torch on small tensors.
    ids, top, present = labels.numpy(), highest.numpy(), score.numpy()
    others = zip(candidates[1:], ends[1:, 0].unbind(), change[1:].unbind(), strict=True)
    for index, first, step in others:
        torch.addcmul(first, step, down, out=score)
        np.greater(present, top, out=wins)
        np.copyto(ids, index, where=wins)
        np.maximum(top, present, out=top)

    best.copy_(highest)

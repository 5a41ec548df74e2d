"""Labels carried from frame to frame of a clip: each place takes those of the places that look most alike."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.config.rules import Count, CountOrZero, Positive, check

_TILE = 16  # cells a side that are compared at once: memory is bounded by what these may look at


@dataclass(frozen=True)
class PropagationConfig:
    """Where a place looks for its label. The defaults are DINO's, Caron et al. 2021 (arXiv:2104.14294)."""

    top_k: Count = 5  # most similar places that count, of all frames together
    context: CountOrZero = 7  # frames before this one that are looked at, beside the first
    radius: CountOrZero = 12  # in cells of the grid: rows and columns apart, at most
    temperature: Positive = 0.1  # of the softmax over cosines

    def __post_init__(self) -> None:
        check(self)


CRW = PropagationConfig(top_k=10, context=20, radius=12, temperature=0.05)
"""The setting of Jabri et al. 2020, "Space-time correspondence as a contrastive random walk" (arXiv:2006.14613)."""


class LabelPropagation:
    """Soft labels of a clip, a frame at a time; all frames have grids of one size.

    Source: arXiv:2104.14294, section 4.2.2, and the code published with it: a frame looks at the first one and at the
    last few, whose labels stay as soft as they were found.
    """

    def __init__(
        self,
        config: PropagationConfig,
        embeddings: Float[Tensor, "d h w"],
        labels: Float[Tensor, "c h w"],
    ) -> None:
        """Begin with the EMBEDDINGS of a frame whose LABELS are known."""
        self._config = config
        self._frame = F.normalize(embeddings, dim=0)
        self._known = (self._frame, labels)
        self._last: deque[tuple[Tensor, Tensor]] = deque(maxlen=config.context)

    def __call__(self, embeddings: Float[Tensor, "d h w"]) -> Float[Tensor, "c h w"]:
        """Return the labels of the next frame: for each cell, a weighted mean of those that it looks at."""
        config = self._config
        self._frame = F.normalize(embeddings, dim=0)
        seen = [self._known, *self._last]
        labels = propagate(
            self._frame,
            torch.stack([frame for frame, _ in seen]),
            torch.stack([known for _, known in seen]),
            top_k=config.top_k,
            radius=config.radius,
            temperature=config.temperature,
        )
        self._last.append((self._frame, labels))
        return labels

    def correct(self, labels: Float[Tensor, "c h w"]) -> None:
        """Put LABELS in place of those of the last frame, and begin anew with it: frames before it are forgotten."""
        self._known = (self._frame, labels)
        self._last.clear()  # or they would outvote what was corrected


def propagate(
    target: Float[Tensor, "d h w"],
    frames: Float[Tensor, "n d h w"],
    labels: Float[Tensor, "n c h w"],
    *,
    top_k: int,
    radius: int,
    temperature: float,
) -> Float[Tensor, "c h w"]:
    """Return labels of TARGET from those of FRAMES, both of unit embeddings, whose LABELS may be soft.

    Each cell takes the mean of its TOP_K most similar cells, of all frames together, within RADIUS rows and columns;
    they weigh exp(cosine / TEMPERATURE). Cells as similar as the last of them count too.
    """
    height, width = target.shape[1:]
    found = torch.empty_like(labels[0])
    for top in range(0, height, _TILE):
        rows, near_rows = _span(top, height, radius)
        for left in range(0, width, _TILE):
            columns, near_columns = _span(left, width, radius)
            cells = target[:, rows, columns].flatten(1)  # d t
            others = frames[:, :, near_rows, near_columns].flatten(2)  # n d m
            near = _near(rows, columns, near_rows, near_columns, radius).to(target.device)  # t m
            cosines = (cells.mT @ others).masked_fill(~near, -torch.inf)  # n t m
            logits = cosines.permute(1, 0, 2).flatten(1) / temperature  # t nm
            least = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
            weights = logits.masked_fill(logits < least, -torch.inf).softmax(1)
            theirs = (
                labels[:, :, near_rows, near_columns].flatten(2).permute(0, 2, 1).flatten(0, 1)
            )  # nm c
            found[:, rows, columns] = (weights @ theirs).mT.unflatten(
                1, (-1, columns.stop - columns.start)
            )
    return found


def stretch(labels: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c h w"]:
    """Scale each label's map so that it spans [0, 1] once it is enlarged bilinearly to SIZE (height, width).

    An object that faded then still wins where it is clearest. Source: norm_mask of DINO's code. Differs: a map of one
    value stays as it is; there it becomes NaN.
    """
    stretched = labels.clone()
    for (
        channel
    ) in stretched:  # one at a time: many objects at the size of a photo would be large indeed
        enlarged = F.interpolate(channel[None, None], size, mode="bilinear", align_corners=False)
        low, high = enlarged.aminmax()
        if high > low:
            channel.sub_(low).div_(high - low)
    return stretched


def _span(start: int, length: int, radius: int) -> tuple[slice, slice]:
    """A tile's rows, or columns, and those that they may look at."""
    stop = min(start + _TILE, length)
    return slice(start, stop), slice(max(0, start - radius), min(length, stop + radius))


def _near(
    rows: slice, columns: slice, near_rows: slice, near_columns: slice, radius: int
) -> Bool[Tensor, "t m"]:
    """Whether each cell of a tile may look at each of the others."""
    down = (_numbers(rows)[:, None] - _numbers(near_rows)).abs() <= radius
    across = (_numbers(columns)[:, None] - _numbers(near_columns)).abs() <= radius
    near = down[:, None, :, None] & across[None, :, None, :]
    return near.flatten(2).flatten(0, 1)


def _numbers(span: slice) -> Int[Tensor, " n"]:
    return torch.arange(span.start, span.stop)

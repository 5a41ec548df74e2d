"""Label propagation in video.

Each cell takes the labels of the most similar cells of earlier frames.
"""

from __future__ import annotations

from collections import deque

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.ops.propagation_config import PropagationConfig

# Cells per side of a tile that is processed at once, which bounds memory.
_TILE = 16


CRW = PropagationConfig(top_k=10, context=20, radius=12, temperature=0.05)
"""Settings of Jabri et al. 2020, "Space-time correspondence as a contrastive random walk"
(arXiv:2006.14613)."""


class LabelPropagation:
    """Propagates soft labels through a clip, one frame at a time.

    All frames have grids of one size. Each frame uses the first frame and the last few, whose
    labels stay soft.

    Source: arXiv:2104.14294, section 4.2.2, and the code published with it.
    """

    def __init__(
        self,
        config: PropagationConfig,
        embeddings: Float[Tensor, "d h w"],
        labels: Float[Tensor, "c h w"],
    ) -> None:
        """Start from a frame whose labels are known.

        Args:
            config: Settings of the propagation.
            embeddings: Embedding of each cell of the first frame.
            labels: Soft labels of the first frame.
        """
        self._config = config
        self._frame = F.normalize(embeddings, dim=0)
        self._known = (self._frame, labels)
        self._last: deque[tuple[Tensor, Tensor]] = deque(maxlen=config.context)

    def __call__(self, embeddings: Float[Tensor, "d h w"]) -> Float[Tensor, "c h w"]:
        """Propagate labels to the next frame.

        Args:
            embeddings: Embedding of each cell of the frame.

        Returns:
            Soft labels: weighted means over the most similar cells of earlier frames.
        """
        config = self._config
        self._frame = F.normalize(embeddings, dim=0)
        frames, known_labels = zip(self._known, *self._last, strict=True)
        labels = propagate(
            self._frame,
            torch.stack(frames),
            torch.stack(known_labels),
            top_k=config.top_k,
            radius=config.radius,
            temperature=config.temperature,
        )
        self._last.append((self._frame, labels))

        return labels

    def correct(self, labels: Float[Tensor, "c h w"]) -> None:
        """Replace the labels of the last frame and restart from it, forgetting the frames before.

        Args:
            labels: Soft labels of the last frame.
        """
        self._known = (self._frame, labels)
        # Otherwise the old labels would outvote the correction.
        self._last.clear()


def propagate(
    target: Float[Tensor, "d h w"],
    frames: Float[Tensor, "n d h w"],
    labels: Float[Tensor, "n c h w"],
    *,
    top_k: int,
    radius: int,
    temperature: float,
) -> Float[Tensor, "c h w"]:
    """Propagate labels from earlier frames to a target frame.

    Each cell takes the mean of its most similar cells, over all frames together, weighted by
    exp(cosine / temperature). Cells tied with the last of them count too.

    Args:
        target: Unit-norm embeddings of the target frame.
        frames: Unit-norm embeddings of the earlier frames.
        labels: Labels of the earlier frames, which may be soft.
        top_k: Number of most similar cells.
        radius: Largest distance in rows and in columns at which cells are compared.
        temperature: Temperature of the softmax over cosines.

    Returns:
        Soft labels of the target frame.
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

            # Softmax over the most similar cells within the radius.
            cosines = (cells.mT @ others).masked_fill(~near, -torch.inf)  # n t m
            logits = cosines.permute(1, 0, 2).flatten(1) / temperature  # t nm
            lowest = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
            weights = logits.masked_fill(logits < lowest, -torch.inf).softmax(1)

            # Weighted mean of their labels.
            label_columns = (
                labels[:, :, near_rows, near_columns].flatten(2).permute(0, 2, 1).flatten(0, 1)
            )  # nm c
            found[:, rows, columns] = (weights @ label_columns).mT.unflatten(
                1, (-1, columns.stop - columns.start)
            )

    return found


def stretch(labels: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c h w"]:
    """Rescale each label's map so that it spans [0, 1] after bilinear enlargement.

    An object whose label has faded then still wins where it is clearest.

    Args:
        labels: Soft labels.
        size: Height and width of the enlarged map in pixels.

    Returns:
        Rescaled labels, not enlarged.

    Source: norm_mask of DINO's code.
    Differs: a constant map stays as it is; there it becomes NaN.
    """
    stretched = labels.clone()
    # One label at a time, to bound the memory of the enlarged maps.
    for channel in stretched:
        enlarged = F.interpolate(channel[None, None], size, mode="bilinear", align_corners=False)
        low, high = enlarged.aminmax()
        if high > low:
            channel.sub_(low).div_(high - low)

    return stretched


def _span(start: int, length: int, radius: int) -> tuple[slice, slice]:
    """Rows (or columns) of a tile, and those within the radius of it."""
    stop = min(start + _TILE, length)
    return slice(start, stop), slice(max(0, start - radius), min(length, stop + radius))


def _near(
    rows: slice, columns: slice, near_rows: slice, near_columns: slice, radius: int
) -> Bool[Tensor, "t m"]:
    """Whether each pair of tile cell and other cell is within the radius."""
    down = (_numbers(rows)[:, None] - _numbers(near_rows)).abs() <= radius
    across = (_numbers(columns)[:, None] - _numbers(near_columns)).abs() <= radius
    near = down[:, None, :, None] & across[None, :, None, :]
    return near.flatten(2).flatten(0, 1)


def _numbers(span: slice) -> Int[Tensor, " n"]:
    """Indices of a slice."""
    return torch.arange(span.start, span.stop)

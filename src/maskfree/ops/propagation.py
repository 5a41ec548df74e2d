"""Label propagation in video.

Each cell takes the labels of the most similar cells of earlier frames.
"""

from __future__ import annotations

from collections import deque

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.ops.onednn import products
from maskfree.ops.propagation_config import PropagationConfig

# Cells per side of a tile that is processed at once, which bounds memory. Larger ones compare
# more cells beyond the radius, smaller ones copy more.
_TILE = 12


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
        self._frame = _channels_last(F.normalize(embeddings, dim=0))
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
        self._frame = _channels_last(F.normalize(embeddings, dim=0))
        frames, known_labels = zip(self._known, *self._last, strict=True)
        labels = propagate(
            self._frame,
            # Stacked as they lie in memory, with the channels last.
            torch.stack([frame.movedim(0, -1) for frame in frames]).movedim(-1, 1),
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
    # Cells one after the other, so that those of a rectangle are copied in long runs.
    cells_last, frames_last = target.movedim(0, -1), frames.movedim(1, -1).contiguous()
    labels_last = labels.movedim(1, -1)
    found = torch.empty_like(labels_last[0])

    for top in range(0, height, _TILE):
        rows, near_rows = _span(top, height, radius)
        for left in range(0, width, _TILE):
            columns, near_columns = _span(left, width, radius)
            cells = cells_last[rows, columns].flatten(0, 1)  # t d
            others = frames_last[:, near_rows, near_columns].flatten(0, 2)  # nm d
            other_labels = labels_last[:, near_rows, near_columns].flatten(0, 2)  # nm c
            near = _near(rows, columns, near_rows, near_columns, radius).to(target.device)  # t m

            cosines = products(cells, others)  # t nm
            cosines.unflatten(1, (len(frames), -1)).masked_fill_(~near[:, None], -torch.inf)
            mixed = _mean_of_closest(cosines, other_labels, top_k, temperature)
            found[rows, columns] = mixed.unflatten(0, (-1, columns.stop - columns.start))

    return found.movedim(-1, 0).contiguous()


def _mean_of_closest(
    cosines: Float[Tensor, "t m"], labels: Float[Tensor, "m c"], top_k: int, temperature: float
) -> Float[Tensor, "t c"]:
    """Mean of the labels of the most similar cells, weighted by the softmax of the cosines."""
    # One more shows whether others are tied with the last one.
    values, places = cosines.topk(min(top_k + 1, cosines.shape[1]), dim=1)
    if values.shape[1] <= top_k or not (values[:, -1] == values[:, -2]).any():
        weights = (values[:, :top_k] / temperature).softmax(1)
        return torch.einsum("tk,tkc->tc", weights, labels[places[:, :top_k]])

    lowest = values[:, top_k - 1 : top_k]
    weights = (cosines.masked_fill(cosines < lowest, -torch.inf) / temperature).softmax(1)
    return weights @ labels


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


def _channels_last(values: Float[Tensor, "d h w"]) -> Float[Tensor, "d h w"]:
    """The same values, those of a cell beside each other in memory."""
    return values.movedim(0, -1).contiguous().movedim(-1, 0)


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

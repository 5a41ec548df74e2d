"""Position embeddings of vision transformers, resized to the patch grid of an image."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def resize_positions(
    table: Float[Tensor, "m c"],
    grid: tuple[int, int],
    *,
    num_prefix_tokens: int,
    by: Literal["size", "factor"],
) -> Float[Tensor, "n c"]:
    """Resize the learned square grid of a position embedding, bicubic.

    Args:
        table: Embeddings of the prefix tokens, then of a square grid in row-major order.
        grid: Rows and columns of patches of the image.
        num_prefix_tokens: Number of embeddings before the grid; they stay as they are.
        by: "size" resizes to the grid, "factor" by the scale factor (n + 0.1) / side.

    Returns:
        Embeddings of the prefix tokens and of the image's grid.
    """
    first, rest = table[:num_prefix_tokens], table[num_prefix_tokens:]
    side = round(len(rest) ** 0.5)
    if grid == (side, side):
        return table

    square = rest.T.reshape(1, -1, side, side)
    if by == "size":
        resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    else:
        # Without the 0.1, rounding could lose a row.
        factor = [(length + 0.1) / side for length in grid]
        resized = F.interpolate(square, scale_factor=factor, mode="bicubic", align_corners=False)

    return torch.cat([first, resized[0].flatten(1).T])

"""Position embeddings of vision transformers, resized to the patch grid of an image."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

# Of the cubic convolution kernel; torch's bicubic interpolation has it too.
_CUBIC = -0.75


def resize_positions(
    table: Float[Tensor, "m c"],
    grid: tuple[int, int],
    *,
    num_prefix_tokens: int,
    by: Literal["size", "factor"],
) -> Float[Tensor, "n c"]:
    """Resize the learned square grid of a position embedding, bicubic.

    The grid may be known only when an exported network runs: its size is read from tensors.

    Args:
        table: Embeddings of the prefix tokens, then of a square grid in row-major order.
        grid: Rows and columns of patches of the image.
        num_prefix_tokens: Number of embeddings before the grid; they stay as they are.
        by: "size" resizes to the grid, "factor" by the scale factor (n + 0.1) / side, unless the
            grid is the learned one.

    Returns:
        Embeddings of the prefix tokens and of the image's grid.
    """
    first, rest = table[:num_prefix_tokens], table[num_prefix_tokens:]
    side = round(len(rest) ** 0.5)

    places = [torch.arange(length, device=table.device) for length in grid]
    lengths = [place[-1:] + 1 for place in places]
    if by == "factor":
        # Without the 0.1, rounding could lose a row.
        resized = (lengths[0] != side) | (lengths[1] != side)
        lengths = [length + 0.1 * resized for length in lengths]
    centers = [
        (place + 0.5) * (side / length) - 0.5 for place, length in zip(places, lengths, strict=True)
    ]

    square = rest.unflatten(0, (side, side))
    columns = _interpolated(square.transpose(0, 1), centers[1])  # wp side c
    rows = _interpolated(columns.transpose(0, 1), centers[0])  # hp wp c
    return torch.cat([first, rows.flatten(0, 1)])


def _interpolated(
    values: Float[Tensor, "s a c"], centers: Float[Tensor, " n"]
) -> Float[Tensor, "n a c"]:
    """Values at places between those of the first axis, whose ends go on; not in bf16."""
    before = centers.floor()
    after = centers - before  # distance from the value before

    total = torch.zeros_like(values[:1])
    for offset in (-1, 0, 1, 2):
        taken = (before.long() + offset).clamp(0, len(values) - 1)
        weight = _kernel((after - offset).abs())
        total = total + weight[:, None, None] * values[taken]
    return total


def _kernel(distance: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Weight of the cubic convolution kernel at distances from 0 to 2."""
    a = _CUBIC
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return near.where(distance <= 1, far)

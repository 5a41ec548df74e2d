"""Tokens of overlapping windows, averaged to those of the whole image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from maskfree.ops.window_starts import window_starts


def stitch_windows(
    encode: Callable[[Tensor], Tensor],
    images: Float[Tensor, "b 3 h w"],
    *,
    patch_size: int,
    window_px: int,
    num_prefix_tokens: int,
) -> Float[Tensor, "b n c"]:
    """Encode images by overlapping windows, and average the tokens of a patch over its windows.

    Windows overlap by half, as those of 224 pixels every 112 that most dense CLIPs use.

    Args:
        encode: Computes the tokens of windows: `num_prefix_tokens` tokens of the whole window, then
            its patches in row-major order.
        images: RGB images in [0, 1]; both sides are multiples of `patch_size`.
        patch_size: Side of a patch in pixels.
        window_px: Side of a window in pixels, rounded to whole patches; shorter sides of an image
            are covered whole.
        num_prefix_tokens: Number of tokens before those of the patches.

    Returns:
        Prefix tokens, averaged over all windows, then the patches of the images in row-major order.
    """
    height, width = images.shape[2] // patch_size, images.shape[3] // patch_size
    side = max(1, round(window_px / patch_size))
    stride = max(1, side // 2)
    rows, columns = min(side, height), min(side, width)

    # Windows of the whole batch at one place at a time, which bounds the memory.
    prefixes, places, pieces = [], [], []
    for top in window_starts(height, side, stride):
        for left in window_starts(width, side, stride):
            down, across = slice(top, top + rows), slice(left, left + columns)
            tokens = encode(_pixels(images, down, across, patch_size))
            prefixes.append(tokens[:, :num_prefix_tokens])
            pieces.append(tokens[:, num_prefix_tokens:].unflatten(1, (rows, columns)))
            places.append((down, across))

    total = pieces[0].new_zeros(len(images), height, width, pieces[0].shape[-1])
    visits = total.new_zeros(height, width, 1)
    for (down, across), piece in zip(places, pieces, strict=True):
        total[:, down, across] += piece
        visits[down, across] += 1

    prefix = torch.stack(prefixes).mean(0)
    return torch.cat([prefix, (total / visits).flatten(1, 2)], dim=1)


def _pixels(images: Tensor, down: slice, across: slice, patch_size: int) -> Tensor:
    """Cut patches out of images."""
    top, bottom = down.start * patch_size, down.stop * patch_size
    left, right = across.start * patch_size, across.stop * patch_size
    return images[:, :, top:bottom, left:right]

"""The last transformer block in dense prediction, as `LastBlock` sets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.dense_clip_config import LastBlock
from maskfree.nn.dense_patches import PatchAttention
from maskfree.nn.self_attention import (
    gaussian_windows,
    pair_attention,
    recursive_attention,
    window_attention,
)


class BlockParts(NamedTuple):
    """Modules of a pre-norm transformer block, whatever the network calls them."""

    norm: nn.Module
    """Normalization before the attention."""
    query: nn.Module
    """Projection to queries."""
    key: nn.Module
    """Projection to keys."""
    value: nn.Module
    """Projection to values."""
    output: Callable[[Tensor], Tensor]
    """Output projection of the attention, and layer scale if the network has it."""
    feed_forward: Callable[[Tensor], Tensor]
    """Feed-forward half without its residual connection."""
    num_heads: int
    """Number of attention heads."""


def clip_block_parts(layer: Any) -> BlockParts:
    """Name the modules of a block of CLIP, MetaCLIP 2 or SigLIP.

    Args:
        layer: Encoder layer of transformers.

    Returns:
        Its modules under common names.
    """
    attention = layer.self_attn
    return BlockParts(
        norm=layer.layer_norm1,
        query=attention.q_proj,
        key=attention.k_proj,
        value=attention.v_proj,
        output=attention.out_proj,
        feed_forward=lambda hidden: layer.mlp(layer.layer_norm2(hidden)),
        num_heads=attention.num_heads,
    )


def apply_last_block(
    parts: BlockParts,
    block: LastBlock,
    hidden: Float[Tensor, "b n c"],
    grid: tuple[int, int],
    num_prefix_tokens: int,
) -> Float[Tensor, "b n c"]:
    """Apply a block as its settings say.

    Args:
        parts: Modules of the block.
        block: Attention, and which halves of the block are used.
        hidden: Tokens before the block: prefix tokens, then patches in row-major order.
        grid: Rows and columns of patches.
        num_prefix_tokens: Number of tokens before those of the patches.

    Returns:
        Tokens after the block.
    """
    normalized = parts.norm(hidden)
    mixed = parts.output(_attend(parts, block, normalized, grid, num_prefix_tokens))
    if block.recursion is not None:
        values = parts.value(normalized)
        again = recursive_attention(mixed, values, parts.num_heads, block.recursion)
        mixed = parts.output(again)

    # The second half of the block and its residual connections.
    if block.residual:
        hidden = hidden + mixed
    else:
        hidden = mixed

    if block.feed_forward:
        hidden = hidden + parts.feed_forward(hidden)
    return hidden


def apply_proxy(
    parts: BlockParts,
    proxy: PatchAttention,
    patches: Float[Tensor, "b n c"],
    grid: tuple[int, int],
) -> Float[Tensor, "b m c"]:
    """Replace a block by its values, mixed by the attention of another encoder.

    Args:
        parts: Modules of the block.
        proxy: Attention among m patches of a grid that covers the same image.
        patches: Tokens of the patches before the block, in row-major order.
        grid: Rows and columns of patches.

    Returns:
        Tokens on the grid of the proxy, without residual and feed-forward.

    Source: arXiv:2408.04883, section 3.3.
    """
    values = parts.value(parts.norm(patches)).mT.unflatten(2, grid)

    # The proxy's grid may be finer.
    resized = F.interpolate(values, size=proxy.grid, mode="bilinear", align_corners=False)
    return parts.output(proxy.weights @ resized.flatten(2).mT)


def _attend(
    parts: BlockParts,
    block: LastBlock,
    normalized: Tensor,
    grid: tuple[int, int],
    num_prefix_tokens: int,
) -> Tensor:
    """Return the output of the attention before its output projection."""
    values = parts.value(normalized)
    if block.attention == "value":
        # Each patch reads its own value only.
        return values

    # Split the channels into attention heads.
    split = {}
    for name, part in (
        ("q", parts.query(normalized)),
        ("k", parts.key(normalized)),
        ("v", values),
    ):
        split[name] = part.unflatten(2, (parts.num_heads, -1)).transpose(1, 2)

    # The window covers patches; a class token gets no bonus.
    windows = None
    if block.neighbors is not None:
        windows = gaussian_windows(grid, block.neighbors).to(normalized)
        windows = F.pad(windows, (num_prefix_tokens, 0, num_prefix_tokens, 0))

    if block.attention == "window":
        assert windows is not None
        mixed = window_attention(split["q"], split["k"], windows) @ split["v"]
    else:
        mixed = pair_attention(split, block.attention.split("+"), windows)

    return mixed.transpose(1, 2).flatten(2)

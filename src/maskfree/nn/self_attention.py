"""Attention maps for the last block of a CLIP that is read densely: of vectors with themselves, windowed, by proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def pair_attention(
    parts: Mapping[str, Float[Tensor, "b heads n c"]],
    pairs: Sequence[str],
    windows: Float[Tensor, "n n"] | None = None,
) -> Float[Tensor, "b heads n c"]:
    """Read the values "v" by the softmax over each of PAIRS such as "qk" or "qq" of PARTS, and sum what was read.

    WINDOWS add to the logits. Source: arXiv:2312.01597, eq. 4, for several pairs; arXiv:2404.08181 for windows.
    """
    read = [
        F.scaled_dot_product_attention(parts[one], parts[other], parts["v"], attn_mask=windows)
        for one, other in pairs
    ]
    return torch.stack(read).sum(0)


def window_attention(
    queries: Float[Tensor, "b heads n c"],
    keys: Float[Tensor, "b heads n c"],
    windows: Float[Tensor, "n n"],
) -> Float[Tensor, "b 1 n n"]:
    """Attend by WINDOWS alone, scaled to what a logit of the photo could be at most; rows sum to 1.

    Source: arXiv:2404.08181, its variant without similarities. Differs: each photo of a batch has its own scale.
    """
    lengths = queries.norm(dim=-1)[..., :, None] * keys.norm(dim=-1)[..., None, :]
    scale = queries.shape[-1] ** -0.5 * lengths.mean((1, 2, 3))
    return (windows * scale[:, None, None, None]).softmax(-1)


def gaussian_windows(grid: tuple[int, int], deviation: float) -> Float[Tensor, "n n"]:
    """Return, for each patch of GRID, a Gaussian of the distance to every other: 1 at itself. Symmetric."""
    along = [torch.arange(length, dtype=torch.float32) for length in grid]
    places = torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1).flatten(0, 1)
    squares = (places[:, None] - places[None]).square().sum(-1)
    return (-squares / (2 * deviation**2)).exp()


def proxy_attention(
    features: Float[Tensor, "b c hp wp"], shift: float = 1.2, scale: float = 3.0
) -> Float[Tensor, "b n n"]:
    """Attend among patches that an encoder such as DINO finds more alike than SHIFT times the mean; rows sum to 1.

    Source: arXiv:2408.04883, eq. 5 and 6. Differs: the mean is each photo's own, not the batch's; a patch always
    attends to itself, where the published code divides zero by zero once all patches are alike.
    """
    patches = F.normalize(features.flatten(2).mT, dim=-1)
    similarity = patches @ patches.mT
    logits = (similarity - shift * similarity.mean((1, 2), keepdim=True)) * scale
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits.masked_fill((logits < 0) & ~own, -torch.inf).softmax(-1)

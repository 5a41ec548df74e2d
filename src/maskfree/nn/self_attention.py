"""Attention variants for the last block of CLIP in dense prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def pair_attention(
    parts: Mapping[str, Float[Tensor, "b heads n c"]],
    pairs: Sequence[str],
    windows: Float[Tensor, "n n"] | None = None,
) -> Float[Tensor, "b heads n c"]:
    """Apply attention with each pair of projections as query and key, and sum the outputs.

    Args:
        parts: Projections by letter: "q", "k" and "v", the values.
        pairs: Pairs of letters for query and key, such as "qk" or "qq".
        windows: Bonus that is added to the logits; None: no bonus.

    Returns:
        Sum of the attention outputs over all pairs.

    Source: arXiv:2312.01597, eq. 4, for several pairs; arXiv:2404.08181 for windows.
    """
    # The pair gives query and key; values are the trained ones.
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
    """Compute attention from distance only, scaled like the image's largest possible logits.

    Args:
        queries: Queries, which only set the scale.
        keys: Keys, which only set the scale.
        windows: Window of each patch over all patches, in [0, 1].

    Returns:
        Attention; rows sum to 1.

    Source: arXiv:2404.08181, the variant without similarities.

    Differs: each image of a batch has its own scale.
    """
    # A logit is at most the product of both norms.
    lengths = queries.norm(dim=-1)[..., :, None] * keys.norm(dim=-1)[..., None, :]
    scale = queries.shape[-1] ** -0.5 * lengths.mean((1, 2, 3))
    return (windows * scale[:, None, None, None]).softmax(-1)


def gaussian_windows(grid: tuple[int, int], deviation: float) -> Float[Tensor, "n n"]:
    """Compute a Gaussian of the distance between all pairs of patches.

    Args:
        grid: Rows and columns of the patch grid.
        deviation: Standard deviation in patches.

    Returns:
        Symmetric matrix over patches in row-major order, with 1 on the diagonal.
    """
    along = [torch.arange(length, dtype=torch.float32) for length in grid]

    # Row and column of each patch.
    places = torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1).flatten(0, 1)
    squares = (places[:, None] - places[None]).square().sum(-1)
    return (-squares / (2 * deviation**2)).exp()


def recursive_attention(
    outputs: Float[Tensor, "b n c"], values: Float[Tensor, "b n c"], num_heads: int, scale: float
) -> Float[Tensor, "b n c"]:
    """Read values again, where the outputs of a first attention are alike.

    Args:
        outputs: Output of the first attention, after its projection.
        values: Values of the tokens.
        num_heads: Number of heads that both are split into.
        scale: Factor of the cosines; tokens with a negative cosine do not attend to each other.

    Returns:
        Output of the second attention, before its projection.

    Source: arXiv:2511.19704, self-correlating recursive attention.
    """
    split = [part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in (outputs, values)]
    unit = F.normalize(split[0], dim=-1)
    cosines = unit @ unit.mT

    # Keep the diagonal, so that the row of an output of zeros is not empty.
    own = torch.eye(cosines.shape[-1], dtype=torch.bool, device=cosines.device)
    logits = (scale * cosines).masked_fill((cosines < 0) & ~own, -torch.inf)
    return (logits.softmax(-1) @ split[1]).transpose(1, 2).flatten(2)


def proxy_attention(
    features: Float[Tensor, "b c hp wp"], shift: float = 1.2, scale: float = 3.0
) -> Float[Tensor, "b n n"]:
    """Compute attention among similar patches of another encoder, such as DINO.

    Args:
        features: Feature map of the other encoder.
        shift: Patches attend to each other if their cosine is at least this multiple of the mean
            cosine.
        scale: Factor of the logits.

    Returns:
        Attention of n patches in row-major order; rows sum to 1.

    Source: arXiv:2408.04883, eq. 5 and 6.

    Differs: the mean is that of each image, not of the batch; a patch always attends to itself,
    where the published code divides zero by zero if all patches are alike.
    """
    patches = F.normalize(features.flatten(2).mT, dim=-1)
    similarity = patches @ patches.mT

    # Logits are positive for patches that are more alike than the shifted mean.
    logits = (similarity - shift * similarity.mean((1, 2), keepdim=True)) * scale

    # Keep the diagonal, so that no row is empty.
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits.masked_fill((logits < 0) & ~own, -torch.inf).softmax(-1)


def scoped_attention(
    features: Float[Tensor, "b c hp wp"], regions: Int[Tensor, "b n"], scale: float = 4.0
) -> Float[Tensor, "b n n"]:
    """Compute attention among the patches of a region, by the similarity of another encoder.

    Args:
        features: Feature map of the other encoder.
        regions: Region of each of its n patches, in row-major order.
        scale: Factor of the cosines.

    Returns:
        Attention; rows sum to 1, and are 0 outside the region.

    Source: arXiv:2411.10086, scope and value reconstruction.

    Differs: patch tokens are compared, not the sums of queries and keys.
    """
    patches = F.normalize(features.flatten(2).mT, dim=-1)
    outside = regions[:, :, None] != regions[:, None, :]
    return (scale * patches @ patches.mT).masked_fill(outside, -torch.inf).softmax(-1)

"""Output type of image encoders for dense prediction, and attention that comes from outside."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class DensePatches(NamedTuple):
    """Features of each patch and keys of the last attention."""

    features: Float[Tensor, "b c hp wp"]
    """Patch features before the projection to the embedding space."""
    keys: Float[Tensor, "b e hk wk"]
    """Keys of the last attention, all heads concatenated, on the encoder's own patch grid."""


class PatchAttention(NamedTuple):
    """Attention among the patches of another encoder, a proxy."""

    weights: Float[Tensor, "b n n"]
    """Weight of each patch (column) for each patch (row), in row-major order; rows sum to 1."""
    grid: tuple[int, int]
    """Rows and columns of the proxy's patches."""

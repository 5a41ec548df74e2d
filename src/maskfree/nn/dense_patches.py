"""Output type of image encoders for dense prediction."""

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

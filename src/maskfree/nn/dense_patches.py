"""What a tower that is read densely gives."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class DensePatches(NamedTuple):
    """What the tower has for each patch: features before they are projected, and keys of its last attention."""

    features: Float[Tensor, "b c hp wp"]
    keys: Float[Tensor, "b e hk wk"]  # all heads together; the tower's own grid

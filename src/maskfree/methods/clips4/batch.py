"""Training batch of CLIP-S4."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from maskfree.types import TensorRecord


@dataclass(frozen=True)
class CLIPS4Batch(TensorRecord):
    """Two views of each photo, with regions and teacher embeddings on a coarser grid (hg wg)."""

    images: Float[Tensor, "b 2 3 h w"]
    """The two views."""
    regions: UInt8[Tensor, "b 2 hg wg"]
    """Region of the photo at each cell, numbered alike in both views; 255 for none."""
    teacher: Float16[Tensor, "b 2 d hg wg"] | None = None
    """Unit-norm embeddings of a teacher model."""

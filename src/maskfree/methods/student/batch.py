"""Training batch of the student."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor

from maskfree.types import TensorRecord


@dataclass(frozen=True)
class StudentBatch(TensorRecord):
    """Crops of photos with their pseudo labels."""

    images: Float[Tensor, "b 3 h w"]
    """Crop of each photo."""
    labels: UInt8[Tensor, "b h w"]
    """Class of each pixel; 255 is ignored."""

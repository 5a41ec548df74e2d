"""Training batch of CLIPpy."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from maskfree.types import TensorRecord, Tokens


@dataclass(frozen=True)
class CLIPpyBatch(TensorRecord):
    """Photos with captions."""

    images: Float[Tensor, "b 3 h w"]
    """View of each photo."""
    captions: Tokens | None = None
    """Caption of each photo; None if the photos have none."""

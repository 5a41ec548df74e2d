"""Training batch of GroupViT."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from maskfree.types import TensorRecord, Tokens


@dataclass(frozen=True)
class GroupViTBatch(TensorRecord):
    """Photos with captions.

    Axes: t labels of a photo.
    """

    images: Float[Tensor, "b 3 h w"]
    """View of each photo."""
    captions: Tokens | None = None
    """Caption of each photo; None if the photos have none."""
    labels: Tokens | None = None
    """Prompted nouns of each photo: t per photo, b * t texts in all; None without them."""
    labeled: Bool[Tensor, "b t"] | None = None
    """False where the caption has fewer nouns and the label is arbitrary."""

"""Training batch of ViL-Seg."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from maskfree.types import TensorRecord, Tokens


@dataclass(frozen=True)
class ViLSegBatch(TensorRecord):
    """Views of photos with their captions; what no objective needs is None.

    Axes: v local views of a photo, hv wv their pixels, k words of the batch.
    """

    images: Float[Tensor, "b 3 h w"]
    """Global view of each photo."""
    captions: Tokens | None = None
    """Caption of each photo; empty for one without any text."""
    described: Bool[Tensor, " b"] | None = None
    """Whether the photo has a caption; None if all have."""
    local_views: Float[Tensor, "b v 3 hv wv"] | None = None
    """Low-resolution local crops."""
    augmented_view: Float[Tensor, "b 3 h w"] | None = None
    """The global view after color augmentation and perhaps mirroring."""
    augmented_flipped: Bool[Tensor, " b"] | None = None
    """Whether the augmented view is mirrored relative to the global view."""
    words: Tokens | None = None
    """Words of all photos of the batch together."""
    word_weights: Float[Tensor, "b k"] | None = None
    """Share of each word among a photo's words; rows sum to at most 1."""

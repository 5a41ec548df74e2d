"""Training batch of OVSegmentor: photos, texts of their entities, and partners.

Axes: t labels of a photo.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskfree.types import TensorRecord, Tokens


@dataclass(frozen=True)
class EntityTexts(TensorRecord):
    """Training texts made from the entities of the captions of a batch."""

    questions: Tokens
    """Captions with their entities masked, one per photo."""
    answers: Tokens
    """Prompted sentences that name the masked entities, one per photo."""
    masked: Bool[Tensor, " b"]
    """Whether an entity of the caption was masked."""
    targets: Int[Tensor, "b l"]
    """Number of the entity that each token of the questions masks; -1 for none."""
    labels: Tokens | None = None
    """Prompted entities of each photo: t per photo, b * t texts in all."""
    labeled: Bool[Tensor, "b t"] | None = None
    """False where the photo has fewer entities and the label is arbitrary."""


@dataclass(frozen=True)
class Partners(TensorRecord):
    """For each photo another photo that shares an entity with it."""

    images: Float[Tensor, "b 3 h w"]
    """Photo of the partner."""
    entities: Tokens
    """Prompted names of the shared entities, one per photo."""
    present: Bool[Tensor, " b"]
    """False where there is no partner and the row is arbitrary."""


@dataclass(frozen=True)
class OVSegmentorBatch(TensorRecord):
    """Photos with captions; what no objective needs is None."""

    images: Float[Tensor, "b 3 h w"]
    """View of each photo."""
    captions: Tokens | None = None
    """Caption of each photo."""
    entities: EntityTexts | None = None
    """Training texts made from the captions' entities."""
    partners: Partners | None = None
    """Photos that share an entity; None where no photo of the batch has one."""

"""Data types passed between layers: batches, losses and groups.

Axes: b images, k classes, g groups, n patches, l tokens, d embedding, h w pixels (hp wp: patch
grid), v local views.
Images are RGB in [0, 1]; each encoder normalizes its input itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Float16, Int, UInt8
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Tokens:
    """A padded batch of token ids."""

    ids: Int[Tensor, "b l"]
    """Token ids, with any value on padding."""
    mask: Bool[Tensor, "b l"]
    """True where a token is, False on padding."""

    def to(self, device: torch.device) -> Tokens:
        """Copy the tokens to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return Tokens(self.ids.to(device), self.mask.to(device))


@dataclass(frozen=True)
class EntityTexts:
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

    def to(self, device: torch.device) -> EntityTexts:
        """Copy the texts to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return _moved(self, device)


@dataclass(frozen=True)
class Partners:
    """For each photo another photo that shares an entity with it."""

    images: Float[Tensor, "b 3 h w"]
    """Photo of the partner."""
    entities: Tokens
    """Prompted names of the shared entities, one per photo."""
    present: Bool[Tensor, " b"]
    """False where there is no partner and the row is arbitrary."""

    def to(self, device: torch.device) -> Partners:
        """Copy the partners to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return _moved(self, device)


@dataclass(frozen=True)
class PairedViews:
    """Two views of each photo, with regions and teacher embeddings on a coarser grid."""

    images: Float[Tensor, "b 2 3 h w"]
    """The two views."""
    regions: UInt8[Tensor, "b 2 hg wg"]
    """Region of the photo at each cell, numbered alike in both views; 255 for none."""
    teacher: Float16[Tensor, "b 2 d hg wg"] | None = None
    """Unit-norm embeddings of a teacher model."""

    def to(self, device: torch.device) -> PairedViews:
        """Copy the views to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return _moved(self, device)


@dataclass(frozen=True)
class Batch:
    """A training batch. Fields that the method's transform does not fill are None.

    Boxes are (left, top, right, bottom) of the view in the photo, as fractions in [0, 1], before
    the view was flipped; with the flip flags they undo a view's geometry.
    """

    images: Float[Tensor, "b 3 h w"]
    """Global view of each photo."""
    boxes: Float[Tensor, "b 4"]
    """Box of the global view in the photo."""
    flipped: Bool[Tensor, " b"]
    """Whether the global view was mirrored."""
    captions: Tokens | None = None
    """Caption of each photo."""
    local_views: Float[Tensor, "b v 3 hv wv"] | None = None
    """Low-resolution local crops."""
    local_boxes: Float[Tensor, "b v 4"] | None = None
    """Boxes of the local crops in the photo."""
    local_flipped: Bool[Tensor, "b v"] | None = None
    """Whether each local crop was mirrored."""
    augmented_view: Float[Tensor, "b 3 h w"] | None = None
    """The global view after color augmentation and perhaps mirroring."""
    augmented_flipped: Bool[Tensor, " b"] | None = None
    """Whether the augmented view is mirrored relative to the global view."""
    words: Tokens | None = None
    """Words of all photos of the batch together."""
    word_weights: Float[Tensor, "b k"] | None = None
    """Share of each word among a photo's words; rows sum to at most 1."""
    labels: UInt8[Tensor, "b h w"] | None = None
    """Class of each pixel of the global view; 255 is ignored."""
    entities: EntityTexts | None = None
    """Training texts made from the captions' entities."""
    partners: Partners | None = None
    """Photos that share an entity."""
    pairs: PairedViews | None = None
    """Two views with regions and teacher embeddings."""
    keys: tuple[str, ...] = ()
    """Key of each photo."""

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new object whose tensors are on the device.
        """
        return _moved(self, device)


Movable = TypeVar("Movable", EntityTexts, Partners, PairedViews, Batch)
_ON_DEVICES = (Tensor, Tokens, EntityTexts, Partners, PairedViews)


def _moved(record: Movable, device: torch.device) -> Movable:
    """Copy a record with all its tensors moved to a device."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return replace(
        record, **{k: v.to(device) if isinstance(v, _ON_DEVICES) else v for k, v in values.items()}
    )


@dataclass(frozen=True)
class Losses:
    """Weighted loss terms by name."""

    terms: dict[str, Float[Tensor, ""]]
    """Weighted terms, whose sum is minimized."""
    metrics: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Values for monitoring only, without gradient."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """Sum of the weighted terms.

        Returns:
            The loss to minimize.
        """
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Groups:
    """Grouping of a photo's patches, and a unit-norm embedding of each group."""

    embeddings: Float[Tensor, "b g d"]
    """Unit-norm group embeddings; arbitrary but finite for a group without patches."""
    assignment: Float[Tensor, "b g hp wp"] | None
    """Assignment of each patch to the groups; None: each patch is its own group, row by row."""
    overall: Float[Tensor, "b d"]
    """Unit-norm embedding of the whole photo."""
    patches: tuple[int, int]
    """Rows and columns of the patch grid."""

    @classmethod
    def of_pixels(cls, pixels: Float[Tensor, "b d hp wp"]) -> Groups:
        """Make each patch a group of its own, and the photo their mean.

        Args:
            pixels: Patch embeddings of any norm.

        Returns:
            Groups without an assignment.
        """
        overall = functional.normalize(pixels.mean((2, 3)), dim=-1)
        patches = (pixels.shape[2], pixels.shape[3])
        return cls(functional.normalize(pixels.flatten(2).mT, dim=-1), None, overall, patches)

    def spread(self, values: Float[Tensor, "b g k"]) -> Float[Tensor, "b k hp wp"]:
        """Distribute values of groups to patches by the assignment.

        Args:
            values: One row of values per group.

        Returns:
            Values of each patch.
        """
        if self.assignment is None:
            return values.mT.unflatten(2, self.patches)
        return (self.assignment.flatten(2).mT @ values).mT.unflatten(2, self.patches)

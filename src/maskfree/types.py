"""Data types passed between layers: batches, losses and groups.

Axes: b images, k classes, g groups, n patches, l tokens, d embedding, h w pixels (hp wp: patch
grid).
Images are RGB in [0, 1]; each encoder normalizes its input itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


@runtime_checkable
class Batch(Protocol):
    """Training batch of a method, as far as the training loop knows it.

    Each method has a batch class of its own, usually a `TensorRecord`.
    """

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new batch whose tensors are on the device, with images of floats in [0, 1].
        """
        ...


@dataclass(frozen=True)
class TensorRecord:
    """Base class of frozen dataclasses of tensors that move to a device together."""

    def to(self, device: torch.device) -> Self:
        """Copy the record to a device.

        Args:
            device: Device to copy to.

        Returns:
            A new record whose tensors, also those of records within it, are on the device.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: moved(value, device) for name, value in values.items()})

    def pin_memory(self) -> Self:
        """Copy the record to page-locked memory, from which a GPU copies while it computes.

        Returns:
            A new record whose tensors, also those of records within it, are page-locked.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: pinned(value) for name, value in values.items()})


def moved(value: Any, device: torch.device) -> Any:
    """Copy a field of a batch to a device.

    Args:
        value: Tensor, record or anything else.
        device: Device to copy to.

    Returns:
        The copy; what is neither tensor nor record stays as it is.
    """
    if isinstance(value, Tensor):
        # A copy from page-locked memory need not be waited for.
        return value.to(device, non_blocking=value.is_pinned())
    return value.to(device) if isinstance(value, TensorRecord) else value


def pinned(value: Any) -> Any:
    """Copy a field of a batch to page-locked memory.

    Args:
        value: Tensor, record or anything else.

    Returns:
        The copy; what is neither tensor nor record stays as it is.
    """
    return value.pin_memory() if isinstance(value, Tensor | TensorRecord) else value


@dataclass(frozen=True)
class Tokens(TensorRecord):
    """A padded batch of token ids."""

    ids: Int[Tensor, "b l"]
    """Token ids, with any value on padding."""
    mask: Bool[Tensor, "b l"]
    """True where a token is, False on padding."""


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

    @classmethod
    def merged(cls, parts: Iterable[Losses]) -> Losses:
        """Put the losses of several objectives together.

        Args:
            parts: Losses whose terms and metrics have different names.

        Returns:
            All terms and all metrics.
        """
        terms: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for part in parts:
            terms |= part.terms
            metrics |= part.metrics
        return cls(terms, metrics)


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

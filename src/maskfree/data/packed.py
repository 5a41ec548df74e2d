"""Batches on their way to the device: views are bytes, a quarter of what floats would take.

Bytes become floats, and colors change, on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from maskfree.data.colors import ColorMatrix, recolored, unchanged
from maskfree.data.transforms import View
from maskfree.types import TensorRecord, moved, pinned

Record = TypeVar("Record", bound=TensorRecord)


@dataclass(frozen=True)
class PackedViews(TensorRecord):
    """Views of photos as bytes, with the changes that are still to be made.

    Axes: m views to mirror.
    """

    pixels: UInt8[Tensor, "*views h w 3"]
    """RGB bytes."""
    colors: Float[Tensor, "*views 3 4"] | None = None
    """Color matrix of each view; None if no color changes."""
    mirrored: Int[Tensor, " m"] | None = None
    """Numbers of the views to mirror, all axes of views counted as one; None for none."""

    @classmethod
    def of(cls, views: Sequence[View], per_photo: int | None = None) -> PackedViews:
        """Stack views of one size.

        Args:
            views: Views, photo by photo.
            per_photo: Number of views of each photo, which become an axis; None for no such axis.

        Returns:
            The stacked views.
        """
        pixels = torch.stack([view.image for view in views])
        colors = None
        if any(view.colors is not None for view in views):
            colors = _stacked([view.colors for view in views])

        if per_photo is None:
            return cls(pixels, colors)
        if colors is not None:
            colors = colors.unflatten(0, (-1, per_photo))
        return cls(pixels.unflatten(0, (-1, per_photo)), colors)

    def again(self, colors: Sequence[ColorMatrix | None], mirrored: Sequence[bool]) -> PackedViews:
        """Show the same bytes in another way, without a copy of them.

        Args:
            colors: Color matrix of each view; None changes nothing.
            mirrored: Whether each view is mirrored.

        Returns:
            Views that share the bytes.
        """
        numbers = torch.tensor(mirrored).nonzero()[:, 0]
        return replace(self, colors=_stacked(colors), mirrored=numbers)

    def unpacked(self) -> Float[Tensor, "*views 3 h w"]:
        """Make images of the bytes.

        Returns:
            RGB in [0, 1], with changed colors.
        """
        views, photo = self.pixels.shape[:-3], self.pixels.shape[-3:]
        pixels, colors = self.pixels.reshape(-1, *photo), self.colors
        if self.mirrored is not None:
            chosen = pixels.index_select(0, self.mirrored)
            pixels = pixels.index_copy(0, self.mirrored, chosen.flip(2))
        if colors is not None:
            colors = colors.reshape(-1, 3, 4)

        images = recolored(pixels, colors)
        return images.reshape(*views, *images.shape[1:])


def _stacked(colors: Sequence[ColorMatrix | None]) -> Float[Tensor, "n 3 4"]:
    """Stack color matrices."""
    kept = unchanged()
    matrices = [kept if each is None else each for each in colors]
    return torch.from_numpy(np.stack(matrices)).float()


@dataclass(frozen=True)
class Packed(Generic[Record]):
    """Fields of a batch whose views are still bytes; `to` makes it the batch of a method."""

    kind: type[Record]
    """Class of the batch."""
    fields: dict[str, Any]
    """Its fields by name; `PackedViews` where the batch has images, `Packed` where it has records
    with images."""

    def to(self, device: torch.device) -> Record:
        """Copy the fields to a device and make the batch.

        Args:
            device: Device to copy to.

        Returns:
            Batch on the device, with images of floats.
        """
        made: dict[str, Any] = {}
        for name, value in self.fields.items():
            if isinstance(value, Packed):
                made[name] = value.to(device)
                continue
            value = moved(value, device)
            made[name] = value.unpacked() if isinstance(value, PackedViews) else value
        return self.kind(**made)

    def pin_memory(self) -> Packed[Record]:
        """Copy the fields to page-locked memory, from which a GPU copies while it computes.

        Returns:
            The same batch in page-locked memory.
        """
        fields = {
            name: value.pin_memory() if isinstance(value, Packed) else pinned(value)
            for name, value in self.fields.items()
        }
        return Packed(self.kind, fields)

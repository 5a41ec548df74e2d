"""Embeddings of photos and of their patches in the text embedding space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskfree.inference.photos import fit_to_patches, to_images
from maskfree.inference.scoring import autocast
from maskfree.inference.segmenter import Segmenter

# Two cells per side of a patch let the borders of segments run through patches, at four times the
# memory; more cells would only repeat what is interpolated.
CELLS_PER_PATCH = 2
"""Cells per side of a patch in which pixels are clustered; embeddings are interpolated."""


class PatchEmbeddings(NamedTuple):
    """Unit-norm patch embeddings of a photo, and how many patches it spans without padding."""

    values: Float[Tensor, "d hp wp"]
    """Unit-norm embedding of each patch."""
    extent: tuple[float, float]
    """Patches down and across that the photo covers, at most (hp, wp)."""

    def num_cells(self) -> tuple[int, int]:
        """Return the rows and columns of the grid on which the photo is clustered.

        Returns:
            Rows and columns, `CELLS_PER_PATCH` for each patch that the photo spans, at least 1.
        """
        down, across = self.extent
        return max(1, round(down * CELLS_PER_PATCH)), max(1, round(across * CELLS_PER_PATCH))

    def __repr__(self) -> str:
        """Return a single line without the values."""
        return f"PatchEmbeddings({tuple(self.values.shape)}, extent={self.extent})"

    def at(self, height: int, width: int) -> Float[Tensor, "d h w"]:
        """Sample the embeddings bilinearly on an evenly spaced grid over the photo.

        Args:
            height: Rows of the grid.
            width: Columns of the grid.

        Returns:
            Unit-norm embeddings at the cell centers.
        """
        return F.normalize(sample_evenly(self.values, self.extent, height, width), dim=0)


def sample_evenly(
    values: Float[Tensor, "c hp wp"], extent: tuple[float, float], height: int, width: int
) -> Float[Tensor, "c h w"]:
    """Sample a map of patches bilinearly on an evenly spaced grid over the photo.

    Args:
        values: Values of each patch.
        extent: Patches down and across that the photo covers; the rest is padding.
        height: Rows of the grid.
        width: Columns of the grid.

    Returns:
        Values at the cell centers.
    """
    rows = _places(height, extent[0], values.shape[1])
    columns = _places(width, extent[1], values.shape[2])
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)  # h w 2, x first

    values = values.float()
    return F.grid_sample(
        values[None], grid[None].to(values), padding_mode="border", align_corners=False
    )[0]


def _places(count: int, extent: float, patches: int) -> Float[Tensor, " n"]:
    """Centers of equal parts of the extent, in [-1, 1] over all patches."""
    return (torch.arange(count) + 0.5) / count * extent / patches * 2 - 1


@torch.inference_mode()
def embed(segmenter: Segmenter, photo: Image.Image) -> PatchEmbeddings:
    """Compute the patch embeddings of a whole photo.

    Patches that are grouped get the mean of their groups. Scores are not smoothed and no class
    prior is applied, as no words are involved.

    Args:
        segmenter: Model and inference settings; it needs no words.
        photo: Upright RGB photo.

    Returns:
        Patch embeddings and the extent of the photo.
    """
    patch_size = segmenter.method.patch_size
    padded = fit_to_patches(photo, segmenter.inference, patch_size)
    images = to_images([padded], segmenter.device)

    session = segmenter.float_session
    with autocast(segmenter.device, segmenter.inference):
        if session is None:
            groups = segmenter.grouped_method.group(images)
        else:
            groups = segmenter.grouped_method.groups_of(session.embed(images))
    values = F.normalize(groups.spread(groups.embeddings.float())[0], dim=0)

    # The part of the grid that is not padding.
    height, width = segmenter.inference.resized(photo.height, photo.width)
    return PatchEmbeddings(values, (height / patch_size, width / patch_size))


def embed_photos(segmenter: Segmenter, photos: Iterable[Image.Image]) -> Float[Tensor, "b d"]:
    """Compute one embedding of each whole photo, in batches of photos of equal size.

    Args:
        segmenter: Model and inference settings; it needs no words.
        photos: Upright RGB photos, at least one.

    Returns:
        Unit-norm embedding of each photo, by the method's `embed_images`.
    """
    found: list[Tensor] = []
    waiting: list[UInt8[np.ndarray, "hp wp 3"]] = []

    for photo in photos:
        padded = fit_to_patches(photo, segmenter.inference, segmenter.method.patch_size)
        is_full = len(waiting) == segmenter.inference.batch_size
        if waiting and (is_full or padded.shape != waiting[0].shape):
            found.append(_embed_batch(segmenter, waiting))
            waiting = []
        waiting.append(padded)

    found.append(_embed_batch(segmenter, waiting))
    return torch.cat(found)


@torch.inference_mode()
def _embed_batch(
    segmenter: Segmenter, padded: Sequence[UInt8[np.ndarray, "hp wp 3"]]
) -> Float[Tensor, "b d"]:
    """Embed photos of equal size as one batch."""
    images = to_images(padded, segmenter.device)
    with autocast(segmenter.device, segmenter.inference):
        overall = segmenter.method.embed_images(images)
    return F.normalize(overall.float(), dim=-1)

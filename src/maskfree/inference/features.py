"""The embedding of each patch of a photo, in the space of the texts: what segments, videos and teachers are made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskfree.inference.segmenter import Segmenter


class PatchEmbeddings(NamedTuple):
    """Unit embeddings of a photo's patches, and how many of them the photo spans: the rest was padding."""

    values: Float[Tensor, "d hp wp"]
    extent: tuple[float, float]  # down and across, at most (hp, wp)

    def at(self, height: int, width: int) -> Float[Tensor, "d h w"]:
        """Return the embeddings at HEIGHT x WIDTH evenly spaced places of the photo, bilinearly; unit norm."""
        rows = _places(height, self.extent[0], self.values.shape[1]).to(self.values.device)
        columns = _places(width, self.extent[1], self.values.shape[2]).to(self.values.device)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)  # h w 2, x first
        values = self.values.float()
        sampled = F.grid_sample(
            values[None], grid[None].to(values), padding_mode="border", align_corners=False
        )
        return F.normalize(sampled[0], dim=0)


def _places(count: int, extent: float, patches: int) -> Float[Tensor, " n"]:
    """Middles of COUNT equal parts of EXTENT patches, in [-1, 1] of all PATCHES."""
    return (torch.arange(count) + 0.5) / count * extent / patches * 2 - 1


@torch.inference_mode()
def embed(segmenter: Segmenter, photo: Image.Image) -> PatchEmbeddings:
    """Embed an upright RGB photo as SEGMENTER's inference shows it, whole; of patches in groups, their group's mean.

    Scores are not smoothed and no class is held back: that is inference over words, of which there are none here.
    """
    inference, unit = segmenter.inference, segmenter.method.patch_size
    height, width = inference.resized(photo.height, photo.width)
    small = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=3.0))
    padded = np.pad(small, ((0, -height % unit), (0, -width % unit), (0, 0)), mode="edge")
    images = (
        torch.from_numpy(padded[None]).to(segmenter.device).permute(0, 3, 1, 2).float().div_(255)
    )
    with segmenter.autocast():
        groups = segmenter.method.group(images)
    values = F.normalize(groups.spread(groups.embeddings.float())[0], dim=0)
    return PatchEmbeddings(values, (height / unit, width / unit))

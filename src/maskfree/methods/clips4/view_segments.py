"""Segments of the two views of CLIP-S4: pixel clusters, split along region borders.

Axes: s segments of a view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.losses.pixel_segment import NO_REGION
from maskfree.ops.ignore import IGNORE
from maskfree.ops.segments import intersect, segment_sums, segment_values, spherical_kmeans

# Number of region ids of a photo: region maps are 8-bit.
_REGIONS = 256
# Weight of the pixel position in the K-means clustering, relative to the embedding.
_LOCATION_WEIGHT = 1.0


@dataclass(frozen=True)
class ViewSegments:
    """Views of the global batch, divided into segments by pixel clustering and region maps."""

    pixels: Float[Tensor, "b d h w"]
    """Unit-norm pixel embeddings; the two views of a photo are adjacent."""
    ids: Int[Tensor, "b h w"]
    """Segment of each pixel within its view; -1 is none."""
    max_segments: int
    """Maximum number of segments per view."""
    embeddings: Float[Tensor, "m d"]
    """Unit-norm embeddings of the nonempty segments."""
    rows: Int[Tensor, "b s"]
    """Row of each segment of a view in `embeddings`; undefined for empty segments."""
    views: Int[Tensor, " m"]
    """View of each segment."""
    regions: Int[Tensor, " m"]
    """Region of each segment; equal in both views of a photo, different between photos."""
    teacher: Float[Tensor, "m d"] | None
    """Sum of the teacher's unit-norm embeddings in each segment."""

    @classmethod
    def cut(
        cls,
        pixels: Float[Tensor, "b d h w"],
        regions: Int[Tensor, "b h w"],
        teacher: Float[Tensor, "b d h w"] | None,
        num_segments: int,
    ) -> ViewSegments:
        """Cluster the pixels of each view, and split clusters along region borders.

        Args:
            pixels: Unit-norm pixel embeddings of all views.
            regions: Region of each pixel; `IGNORE` leaves it out before pixels are clustered.
            teacher: Unit-norm teacher embeddings of each pixel, if there is a teacher.
            num_segments: Number of clusters per view.

        Returns:
            The segments.
        """
        # Splitting along region borders adds segments; twice the clusters leaves room for them.
        max_segments = 2 * num_segments
        inside = regions != IGNORE
        clusters = spherical_kmeans(
            pixels.detach(), num_segments, location=_LOCATION_WEIGHT, inside=inside
        )
        ids = intersect(clusters, regions, max_segments)

        sums, counts = segment_sums(pixels, ids, max_segments)
        nonempty = counts > 0

        # Region ids are made unique between photos and shared by both views of one.
        photos = torch.arange(len(pixels), device=pixels.device)[:, None] // 2
        numbers = photos * _REGIONS + segment_values(regions, ids, max_segments)

        teacher_sums = None
        if teacher is not None:
            teacher_sums = segment_sums(teacher, ids, max_segments)[0][nonempty]

        return cls(
            pixels=pixels,
            ids=ids,
            max_segments=max_segments,
            embeddings=F.normalize(sums[nonempty], dim=1),
            rows=nonempty.flatten().cumsum(0).view_as(nonempty) - 1,
            views=nonempty.nonzero()[:, 0],
            regions=numbers[nonempty],
            teacher=teacher_sums,
        )

    def pixel_regions(self) -> Int[Tensor, "b h w"]:
        """Look up the region of each pixel's segment.

        Returns:
            Region of each pixel, as numbered in `regions`; `NO_REGION` for pixels without a
            segment.
        """
        if not len(self.regions):
            return torch.full_like(self.ids, NO_REGION)

        # Pixels without a segment look up segment 0; their region is masked below.
        rows = self.rows.gather(1, self.ids.flatten(1).clamp_min(0)).view_as(self.ids)
        regions = self.regions[rows.clamp(0, len(self.regions) - 1)]
        return regions.masked_fill(self.ids < 0, NO_REGION)

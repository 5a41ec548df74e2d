"""Training views of CLIP-S4: two views of each photo with their regions and teacher features.

Regions and teacher features are computed on the whole photo, so that both views agree on them; each
view crops and mirrors its part of them.

Source: CLIP-S4 (CVPR 2023), sections 3.1, 3.2 and 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from maskfree.data.cache.region_maps import SegmentMaps
from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.data.colors import blurred, color_jitter, grayed, unchanged
from maskfree.data.packed import Packed, PackedViews
from maskfree.data.sample import Source, Transform
from maskfree.data.transforms import Box, View, random_view
from maskfree.methods.clips4.batch import CLIPS4Batch
from maskfree.methods.clips4.config import PairConfig

# Probability of a horizontal flip, for each view.
_MIRROR = 0.5
# Smallest and largest standard deviation of the blur in pixels, as in SimCLR.
_BLUR_PX = (0.1, 2.0)


class ColorAugmentation(NamedTuple):
    """Random changes of a view's colors."""

    jitter: tuple[float, float, float, float]
    """Strength of brightness, contrast, saturation and hue jitter."""
    jitter_probability: float
    """Probability of color jitter."""
    grayscale_probability: float
    """Probability of conversion to grayscale."""
    blur_probability: float
    """Probability of Gaussian blur."""


COLORS = {
    # arXiv:2002.05709, appendix A.
    "simclr": ColorAugmentation((0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.5),
    # Close to the colors that the teacher sees.
    "mild": ColorAugmentation((0.2, 0.2, 0.2, 0.05), 0.5, 0.0, 0.0),
    "none": ColorAugmentation((0.0, 0.0, 0.0, 0.0), 0.0, 0.0, 0.0),
}
"""Color augmentations by name."""


class CLIPS4Sample(NamedTuple):
    """Two views of one photo."""

    views: tuple[View, View]
    regions: Tensor
    teacher: Tensor | None


@dataclass(frozen=True)
class PairTransform(Transform):
    """Crop, mirror, jitter and blur a photo twice, with its region map and teacher features."""

    views: PairConfig
    """Size and augmentation of the views."""
    grid: int
    """Side of the grid of regions and teacher features of a view, in cells."""
    segments: Path | None
    """Folder of region maps; None treats a photo as one region."""
    teacher: Path | None
    """Folder of teacher feature maps; None if no loss needs a teacher."""

    @property
    def reads_maps(self) -> bool:
        """Whether `sample` reads files of each photo.

        Returns:
            True if region maps or teacher features are set.
        """
        return self.segments is not None or self.teacher is not None

    def sample(self, source: Source, seed: int) -> CLIPS4Sample:
        """Create two views of one photo.

        Args:
            source: Photo with its key, which names the files of regions and teacher features.
            seed: Seed of all random choices.

        Returns:
            Both views.

        Raises:
            FileNotFoundError: The photo has no region map or no teacher features.
            ValueError: One of them belongs to another photo.
        """
        rng = np.random.default_rng(seed)
        photo = source.photo
        size = (photo.height, photo.width)

        # Maps of the whole photo; without region maps one region covers it.
        regions = np.zeros((1, 1), np.uint8)
        if self.segments is not None:
            regions = SegmentMaps(self.segments).of(source.key, size)

        features = None
        if self.teacher is not None:
            features = TeacherMaps(self.teacher).of(source.key, size).float()

        # Two independent views, each with its part of the maps.
        pixels = np.asarray(photo)
        views, parts, taught = [], [], []
        for _ in range(2):
            config = self.views
            view = random_view(rng, pixels, config.side_px, config.scale, _MIRROR)
            views.append(self._colored(view, rng))

            part = torch.from_numpy(cut_regions(regions, view.box, self.grid))
            parts.append(_like(view, part))
            if features is not None:
                taught.append(_like(view, cut_embeddings(features, view.box, self.grid)).half())

        return CLIPS4Sample(
            views=(views[0], views[1]),
            regions=torch.stack(parts),
            teacher=torch.stack(taught) if taught else None,
        )

    def collate(self, samples: Sequence[CLIPS4Sample]) -> Packed[CLIPS4Batch]:
        """Stack samples into a batch.

        Args:
            samples: Samples of this process's photos.

        Returns:
            The batch.
        """
        views = [view for sample in samples for view in sample.views]
        taught = [sample.teacher for sample in samples if sample.teacher is not None]

        fields = {
            "images": PackedViews.of(views, per_photo=2),
            "regions": torch.stack([sample.regions for sample in samples]),
            "teacher": torch.stack(taught) if taught else None,
        }
        return Packed(CLIPS4Batch, fields)

    def _colored(self, view: View, rng: np.random.Generator) -> View:
        """Draw color jitter, grayscale and blur, in this order; only the blur is applied.

        Blur and the change of colors may change places: both are affine.
        """
        # Order of the augmentations in SimCLR.
        augmentation = COLORS[self.views.colors]
        image, colors = view.image, None
        if rng.random() < augmentation.jitter_probability:
            colors = color_jitter(rng, *augmentation.jitter)
        if rng.random() < augmentation.grayscale_probability:
            colors = grayed(unchanged() if colors is None else colors)
        if rng.random() < augmentation.blur_probability:
            image = blurred(image, float(rng.uniform(*_BLUR_PX)))

        return view._replace(image=image, colors=colors)


def _like(view: View, grid: Tensor) -> Tensor:
    """Mirror a grid of values if the view is mirrored."""
    return grid.flip(-1) if view.flipped else grid


def cut_regions(regions: UInt8[np.ndarray, "h w"], box: Box, grid: int) -> UInt8[np.ndarray, "g g"]:
    """Sample the region map at the cell centers of a grid over a box.

    Args:
        regions: Region map of the whole photo.
        box: Left, top, right, bottom as fractions of the photo.
        grid: Cells along each side.

    Returns:
        Region of each cell.
    """
    height, width = regions.shape
    middles = (np.arange(grid) + 0.5) / grid
    # Regions are ids, so they are sampled, not interpolated.
    rows = np.clip((box[1] + middles * (box[3] - box[1])) * height, 0, height - 1).astype(int)
    columns = np.clip((box[0] + middles * (box[2] - box[0])) * width, 0, width - 1).astype(int)
    return regions[rows[:, None], columns]


def cut_embeddings(
    embeddings: Float[Tensor, "d hp wp"], box: Box, grid: int
) -> Float[Tensor, "d g g"]:
    """Sample embeddings bilinearly at the cell centers of a grid over a box.

    Args:
        embeddings: Teacher features of the whole photo.
        box: Left, top, right, bottom as fractions of the photo.
        grid: Cells along each side.

    Returns:
        Unit-norm embedding of each cell.
    """
    # Cell centers in grid_sample's coordinates, which run from -1 to 1.
    middles = (torch.arange(grid) + 0.5) / grid
    rows = 2 * (box[1] + middles * (box[3] - box[1])) - 1
    columns = 2 * (box[0] + middles * (box[2] - box[0])) - 1

    net = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    sampled = F.grid_sample(embeddings[None], net[None], padding_mode="border", align_corners=False)

    # Interpolation between unit vectors shortens them.
    return F.normalize(sampled[0], dim=0)

"""Regions of images on a patch grid."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maskfree.regions.region_maps import SegmentConfig, region_map


def patch_regions(
    images: Float[Tensor, "b 3 h w"],
    grid: tuple[int, int],
    kind: Literal["contours", "slic", "felzenszwalb"],
) -> Int[Tensor, "b n"]:
    """Divide images into regions and give each patch the region of its center.

    Args:
        images: RGB images in [0, 1].
        grid: Rows and columns of patches.
        kind: Method that finds the regions.

    Returns:
        Region of each patch, in row-major order, from 0 on; a region may have no patch.

    Raises:
        ValueError: The library that finds the regions is not installed.
    """
    found = []
    for image in images:
        pixels = (255 * image).round().byte().permute(1, 2, 0).cpu().numpy()
        regions = torch.from_numpy(region_map(pixels, SegmentConfig(kind)).astype("float32"))
        found.append(F.interpolate(regions[None, None], grid, mode="nearest-exact").flatten())

    return torch.stack(found).long().to(images.device)

"""Refinement of score maps by the regions between the contours of the photo."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from maskfree.ops.label_map import enlarge
from maskfree.regions.region_average import average_over_levels
from maskfree.regions.region_maps import contour_hierarchy

# Pixels in which regions are found: those of the photos of BSDS500, for which the weights of the
# contours were learned. Half as many cost boundaries and mIoU, and 200,000 won nothing.
REGION_PIXELS = 481 * 321
# Classes averaged at once, which bounds the memory of many classes.
_BLOCK_CLASSES = 32


def by_regions(
    image: UInt8[np.ndarray, "h w 3"],
    scores: Float[Tensor, "k hp wp"],
    extent: tuple[float, float],
) -> Float[Tensor, "k hc wc"]:
    """Average a score map within the regions of the photo, at several levels of their hierarchy.

    Args:
        image: The photo as the network saw it, before padding.
        scores: Cosines of patches and classes.
        extent: Patches of the score map that the photo covers, down and across.

    Returns:
        Score map that covers the photo, of at most about `REGION_PIXELS` cells.

    Raises:
        ValueError: The package of the regions is missing.
    """
    # Reduce a larger photo to the pixels in which regions are found.
    scale = min(1.0, math.sqrt(REGION_PIXELS / (image.shape[0] * image.shape[1])))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)

    basins, parents = contour_hierarchy(np.asarray(small)).merges()
    sizes = np.bincount(basins.ravel())
    place = torch.from_numpy(basins).flatten()

    refined = scores.new_empty(len(scores), height, width)
    for first in range(0, len(scores), _BLOCK_CLASSES):
        block = slice(first, first + _BLOCK_CLASSES)
        values = enlarge(scores[block], (height, width), extent).flatten(1).double()

        # Means of the smallest regions, then of those that they merge into.
        sums = values.new_zeros(len(values), len(sizes)).index_add_(1, place, values)
        means = average_over_levels(sums.T.numpy() / sizes[:, None], sizes, parents)
        refined[block] = torch.from_numpy(means.T)[:, place].reshape(-1, height, width)

    return refined

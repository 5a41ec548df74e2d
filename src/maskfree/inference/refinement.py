"""Refinement of coarse score maps to pixel resolution by PAMR, a dense CRF or regions.

A score map is as coarse as the network's patches, and enlarging it bilinearly ignores the photo.
PAMR averages the scores of neighbors of similar color; a dense CRF weighs all pairs of pixels;
regions average scores between the contours of the photo.
"""

from __future__ import annotations

from itertools import product
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from maskfree.inference.config import Refinement
from maskfree.inference.region_refinement import by_regions
from maskfree.ops.label_map import enlarge

# Dilations of PAMR in pixels, as in TCL.
DILATIONS = (1, 2, 4, 8, 12, 24)
# Working resolution by kind: one score per cell of so many pixels a side.
CELL_PX = {
    "none": 1,
    "pamr": 4,
    "crf": 4,
}
# Cosines whose difference makes one class e times as probable as another, for the CRF.
SOFTNESS = 0.05
_NEIGHBORS = tuple(
    (down, across) for down, across in product((-1, 0, 1), repeat=2) if down or across
)
# Scores worked on at once: few enough to stay in a core's cache.
_BLOCK_VALUES = 2**17


def refine(
    kind: Refinement,
    image: UInt8[np.ndarray, "h w 3"],
    scores: Float[Tensor, "k hp wp"],
    extent: tuple[float, float],
    softness: float = SOFTNESS,
    cell_px: int | None = None,
) -> Float[Tensor, "k hc wc"]:
    """Return a score map that follows the edges of the image.

    All but "crf" average cosines and return cosines, so a background threshold still applies.
    "crf" returns probabilities that sum to 1 over the classes: there a threshold must take part as
    one more class, whose score is the threshold everywhere. (To the others that class makes no
    difference.)

    Args:
        kind: Refinement method.
        image: The photo as the network saw it, before padding.
        scores: Cosines of patches and classes.
        extent: Patches of the score map that the photo covers, down and across.
        softness: Temperature of the softmax over scores for the CRF; positive.
        cell_px: Side in pixels of a cell of the result; None takes the default of the kind. Regions
            have a resolution of their own.

    Returns:
        Score map that covers exactly the photo; `label_map(result, size=..., extent=(hc, wc))`
        gives the labels.

    Raises:
        ValueError: The kind is unknown, a setting is not positive, or a package is missing.
    """
    if kind not in get_args(Refinement):
        raise ValueError(
            f"the refinement {kind!r} is unknown: choose from {', '.join(get_args(Refinement))}"
        )
    if kind == "regions":
        return by_regions(image, scores, extent)
    if cell_px is None:
        cell_px = CELL_PX[kind]
    if cell_px < 1 or not softness > 0:
        raise ValueError(f"cell_px {cell_px} and softness {softness:g} must be positive")
    height, width = (max(1, round(side / cell_px)) for side in image.shape[:2])
    enlarged = enlarge(scores, (height, width), extent)
    if kind == "none":
        return enlarged

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    if cell_px > 1:
        pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)

    if kind == "pamr":
        return pamr(pixels / 255, enlarged[None])[0]

    # The CRF takes bytes; its distances are given in pixels of the photo.
    small = pixels[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    probabilities = (enlarged / softness).softmax(0).numpy()

    return torch.from_numpy(
        dense_crf(small, probabilities, smooth_px=3 / cell_px, color_px=67 / cell_px)
    )


def pamr(
    image: Float[Tensor, "b 3 h w"],
    masks: Float[Tensor, "b k hm wm"],
    iterations: int = 10,
    dilations: tuple[int, ...] = DILATIONS,
) -> Float[Tensor, "b k h w"]:
    """Pixel-adaptive mask refinement: iterated averages over neighbors of similar color.

    Each pixel has eight neighbors per dilation (replicate padding at the border), weighted by the
    softmax of minus their color distance relative to the local color spread. All classes share the
    weights, so values stay within the range of the masks and soft masks keep their sum. The image's
    scale and offset do not matter. Masks of another size are first enlarged bilinearly with aligned
    corners. Memory: 8 weights per dilation and pixel, whatever the number of classes.

    Args:
        image: Colors that the masks follow.
        masks: Score map or soft masks per class.
        iterations: Number of averaging steps, at least 0.
        dilations: Distances of the neighbors in pixels, each at least 1.

    Returns:
        Refined masks at the image's size.

    Raises:
        ValueError: There is no dilation, or a dilation is below 1 or the iterations are negative.

    Source: Araslanov & Roth 2020, section 4.2 (arXiv:2005.08104), with TCL's settings
    (arXiv:2212.00785).
    Differs: ten iterations of dilations up to 24 as in TCL; the spread is taken over all dilations
    together.
    """
    if iterations < 0 or not dilations or min(dilations) < 1:
        raise ValueError(
            "PAMR takes dilations of at least 1 and iterations of at least 0: "
            f"{dilations}, {iterations}"
        )

    size = (image.shape[2], image.shape[3])
    if masks.shape[2:] != size:
        masks = F.interpolate(masks, size, mode="bilinear", align_corners=True)

    reach = max(dilations)
    offsets = [
        (reach + down * step, reach + across * step)
        for step in dilations
        for down, across in _NEIGHBORS
    ]

    weights = _affinities(image, offsets, reach)

    # Work on a band of lines at a time.
    num_lines = max(1, _BLOCK_VALUES // masks[:, :, 0].numel())
    for _ in range(iterations):
        padded = F.pad(masks, (reach,) * 4, mode="replicate")
        masks = torch.zeros_like(masks)
        for start in range(0, size[0], num_lines):
            stop = min(start + num_lines, size[0])
            block = masks[:, :, start:stop]
            for weight, (top, left) in zip(weights, offsets, strict=True):
                near = padded[:, :, top + start : top + stop, left : left + size[1]]
                block.addcmul_(near, weight[:, :, start:stop])

    return masks


def _affinities(
    image: Float[Tensor, "b 3 h w"], offsets: list[tuple[int, int]], reach: int
) -> Float[Tensor, "n b 1 h w"]:
    """Weights of the neighbors at each offset of the padded image; they sum to 1 per pixel."""
    height, width = image.shape[2:]
    padded = F.pad(image, (reach,) * 4, mode="replicate")

    # Local standard deviation of each channel.
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for top, left in offsets:
        change = padded[:, :, top : top + height, left : left + width] - image
        total.add_(change)
        squares.addcmul_(change, change)

    # The pixel itself counts once per dilation, with a change of 0.
    num_samples = len(offsets) // 8 * 9
    spread = ((squares - total * total / num_samples) / (num_samples - 1)).clamp_(min=0).sqrt_()

    # Mean over channels of the color change, negated and relative to the local spread.
    rate = (1e-8 + 0.1 * spread).mul_(-image.shape[1]).reciprocal_()
    weights = image.new_empty(len(offsets), len(image), 1, height, width)

    for weight, (top, left) in zip(weights, offsets, strict=True):
        change = (padded[:, :, top : top + height, left : left + width] - image).abs_()
        torch.sum(change.mul_(rate), dim=1, keepdim=True, out=weight)

    # No maximum is subtracted before exp: by the definition of spread, the nearest neighbor
    # is at most 10 * sqrt(9.9) = 31.5 away.
    weights.exp_()
    return weights.div_(weights.sum(0))


def dense_crf(
    image: UInt8[np.ndarray, "h w 3"],
    probabilities: Float[np.ndarray, "k h w"],
    iterations: int = 10,
    smooth_weight: float = 3.0,
    smooth_px: float = 3.0,
    color_weight: float = 4.0,
    color_px: float = 67.0,
    color_range: float = 3.0,
) -> Float32[np.ndarray, "k h w"]:
    """Refine class probabilities by mean-field inference in a fully connected CRF.

    Args:
        image: Colors of the photo.
        probabilities: Class probabilities of each pixel, summing to 1 over the classes.
        iterations: Number of mean-field steps.
        smooth_weight: Penalty for different classes of pixels near each other.
        smooth_px: Standard deviation in pixels of that nearness.
        color_weight: Penalty for different classes of near pixels of similar color.
        color_px: Standard deviation in pixels of nearness for that penalty.
        color_range: Standard deviation of the color, in units of 1/255.

    Returns:
        Refined probabilities, summing to 1 over the classes.

    Raises:
        ValueError: pydensecrf2 is not installed.

    Source: Krähenbühl & Koltun 2011 (arXiv:1210.5644), equations 2 and 3, through the package
    pydensecrf2. The default weights are the better of two common sets (the other: 3, 3 px, 10, 80
    px, 13) on photos of coco-mini.
    """
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise ValueError(
            "a dense CRF needs the package pydensecrf2: pip install pydensecrf2"
        ) from error

    num_classes, height, width = probabilities.shape

    field = DenseCRF2D(width, height, num_classes)
    # Unary energies; probabilities are clipped to keep the logarithm finite.
    energy = -np.log(np.clip(probabilities, 1e-5, 1)).reshape(num_classes, -1)
    field.setUnaryEnergy(np.ascontiguousarray(energy, dtype=np.float32))
    field.addPairwiseGaussian(sxy=smooth_px, compat=smooth_weight)
    field.addPairwiseBilateral(
        sxy=color_px, srgb=color_range, rgbim=np.array(image, order="C"), compat=color_weight
    )
    return np.array(field.inference(iterations), dtype=np.float32).reshape(probabilities.shape)

"""From patch scores to pixels: scores follow the photo's own edges before the best class is taken.

A score map is as coarse as the network's patches, and enlarging it bilinearly ignores the photo. PAMR lets every pixel
take the average of the scores of neighbours of its own color; a dense CRF weighs all pairs of pixels.
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

DILATIONS = (1, 2, 4, 8, 12, 24)  # in pixels, as TCL sets them
CELL_PX = {
    "none": 1,
    "pamr": 4,
    "crf": 4,
}  # working resolution by kind: one score per cell of so many pixels a side
SOFTNESS = (
    0.05  # cosines whose difference makes one class e times as probable as another, for the CRF
)
_NEIGHBOURS = tuple(
    (down, across) for down, across in product((-1, 0, 1), repeat=2) if down or across
)
_BLOCK_VALUES = 2**17  # scores worked on at once: few enough to stay in a core's cache


def refine(
    kind: Refinement,
    image: UInt8[np.ndarray, "h w 3"],
    scores: Float[Tensor, "k hp wp"],
    extent: tuple[float, float],
    softness: float = SOFTNESS,
    cell_px: int | None = None,
) -> Float[Tensor, "k hc wc"]:
    """Return a score map that follows the edges of IMAGE, one score per cell of CELL_PX x CELL_PX pixels of it.

    IMAGE is the photo as the network saw it, before padding; EXTENT is how many patches of SCORES it covers, down and
    across. The result covers exactly the photo: `label_map(result, size=..., extent=(hc, wc))` gives the labels.
    "none" and "pamr" average cosines and return cosines: a background threshold holds for them as before. "crf" returns
    probabilities that sum to 1 over the classes, from a softmax of SCORES / SOFTNESS: there a threshold must take part
    as one more class, whose score is the threshold everywhere. (To PAMR that class makes no difference.)

    Raises:
        ValueError: the kind is unknown, a setting is not positive, or the CRF's package is missing.
    """
    if kind not in get_args(Refinement):
        raise ValueError(
            f"the refinement {kind!r} is unknown: choose from {', '.join(get_args(Refinement))}"
        )
    cell_px = CELL_PX[kind] if cell_px is None else cell_px
    if cell_px < 1 or not softness > 0:
        raise ValueError(f"cell_px {cell_px} and softness {softness:g} must be positive")
    height, width = (max(1, round(side / cell_px)) for side in image.shape[:2])
    enlarged = _enlarge(scores, (height, width), extent)
    if kind == "none":
        return enlarged
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    if cell_px > 1:
        pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    if kind == "pamr":
        return pamr(pixels / 255, enlarged[None])[0]
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
    """Pixel-adaptive mask refinement: MASKS as averages over neighbours of like color, ITERATIONS times.

    Each pixel has eight neighbours per dilation (in pixels; beyond the border the border repeats), weighted by the
    softmax of minus their distance in color, relative to the colors' local spread. Every class is averaged with the
    same weights, so values stay within the range of MASKS and soft masks keep their sum. Only ratios of the image's
    values count: neither its unit nor an offset matter. Masks of another size are first enlarged bilinearly, corner to
    corner. Memory: 8 weights per dilation and pixel, whatever the number of classes.

    Source: Araslanov & Roth 2020, section 4.2 (arXiv:2005.08104), with TCL's settings (arXiv:2212.00785).
    Differs: ten iterations of dilations up to 24 as in TCL; the spread is taken over all dilations together.

    Raises:
        ValueError: there is no dilation, or an iteration or dilation that is not positive.
    """
    if iterations < 0 or not dilations or min(dilations) < 1:
        raise ValueError(
            f"PAMR takes dilations of at least 1 and iterations of at least 0: {dilations}, {iterations}"
        )
    size = (image.shape[2], image.shape[3])
    if masks.shape[2:] != size:
        masks = F.interpolate(masks, size, mode="bilinear", align_corners=True)
    reach = max(dilations)
    offsets = [
        (reach + down * step, reach + across * step)
        for step in dilations
        for down, across in _NEIGHBOURS
    ]
    weights = _affinities(image, offsets, reach)
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
    """Weights of the neighbours at OFFSETS (of the image padded by REACH), which sum to 1."""
    height, width = image.shape[2:]
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for top, left in offsets:
        change = padded[:, :, top : top + height, left : left + width] - image
        total.add_(change)
        squares.addcmul_(change, change)
    num_samples = (
        len(offsets) // 8 * 9
    )  # the pixel itself counts once per dilation, with a change of 0
    spread = ((squares - total * total / num_samples) / (num_samples - 1)).clamp_(min=0).sqrt_()
    rate = (1e-8 + 0.1 * spread).mul_(-image.shape[1]).reciprocal_()
    weights = image.new_empty(len(offsets), len(image), 1, height, width)
    for weight, (top, left) in zip(weights, offsets, strict=True):
        change = (padded[:, :, top : top + height, left : left + width] - image).abs_()
        torch.sum(change.mul_(rate), dim=1, keepdim=True, out=weight)
    # No maximum is subtracted: the nearest neighbour is at most 10 * sqrt(9.9) = 31.5 away, by how spread is defined.
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
    """Fully connected CRF: the class probabilities of each pixel, after ITERATIONS of mean-field inference.

    Two pixels of different classes cost SMOOTH_WEIGHT if near (standard deviation SMOOTH_PX), and COLOR_WEIGHT if near
    (COLOR_PX) and of like color (COLOR_RANGE, of 255). PROBABILITIES sum to 1 over the classes, and so does the
    result. Source: Krähenbühl & Koltun 2011 (arXiv:1210.5644), equations 2 and 3, through the package pydensecrf2. The
    default weights are the better of two common sets (the other: 3, 3 px, 10, 80 px, 13) on photos of coco-mini.

    Raises:
        ValueError: pydensecrf2 is not installed.
    """
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise ValueError(
            "a dense CRF needs the package pydensecrf2: pip install pydensecrf2"
        ) from error
    num_classes, height, width = probabilities.shape
    field = DenseCRF2D(width, height, num_classes)
    energy = -np.log(np.clip(probabilities, 1e-5, 1)).reshape(num_classes, -1)
    field.setUnaryEnergy(np.ascontiguousarray(energy, dtype=np.float32))
    field.addPairwiseGaussian(sxy=smooth_px, compat=smooth_weight)
    field.addPairwiseBilateral(
        sxy=color_px, srgb=color_range, rgbim=np.array(image, order="C"), compat=color_weight
    )
    return np.array(field.inference(iterations), dtype=np.float32).reshape(probabilities.shape)


def _enlarge(
    scores: Float[Tensor, "k hp wp"], size: tuple[int, int], extent: tuple[float, float]
) -> Float[Tensor, "k h w"]:
    """Sample the part of SCORES that EXTENT covers at the centers of SIZE cells, bilinearly, as `label_map` does."""
    down, across = (
        (torch.arange(cells) + 0.5) * (2 * covered / cells / patches)
        - 1  # -1 and 1 are the outer edges of the map
        for cells, covered, patches in zip(size, extent, scores.shape[1:], strict=True)
    )
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
    return F.grid_sample(
        scores[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]

"""Random changes of a view's colors, kept as one matrix until the view is on the device.

A color matrix (3 4) maps red, green, blue and the mean luma of the view to the new color.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor
from torch.nn import functional as F

ColorMatrix: TypeAlias = Float64[np.ndarray, "3 4"]

# Rows are Y (Rec. 601 luma), I and Q; a hue shift rotates the I-Q plane.
_RGB_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)

_LUMA = _RGB_TO_YIQ[0]
_GRAY = np.tile(_LUMA, (3, 1))
# The parts of a change of colors: luma, chroma, chroma turned by a quarter, and mean luma.
_PARTS = np.zeros((4, 3, 4))
_PARTS[0, :, :3] = _YIQ_TO_RGB @ np.diag([1, 0, 0]) @ _RGB_TO_YIQ
_PARTS[1, :, :3] = _YIQ_TO_RGB @ np.diag([0, 1, 1]) @ _RGB_TO_YIQ
_PARTS[2, :, :3] = _YIQ_TO_RGB @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _RGB_TO_YIQ
_PARTS[3, :, 3] = 1
# Images of floats that a CPU makes at once: more would leave its cache.
_CPU_AT_ONCE = 8


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw what `rng.uniform` draws, in a third of the time.

    Args:
        rng: Source of randomness.
        low: Smallest value.
        high: Largest value.

    Returns:
        The value.
    """
    return low + (high - low) * rng.random()


def unchanged() -> ColorMatrix:
    """Return the matrix that keeps every color.

    Returns:
        Color matrix.
    """
    return np.eye(3, 4)


def color_jitter(
    rng: np.random.Generator,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
) -> ColorMatrix:
    """Draw a change of brightness, contrast, saturation and hue.

    Every step is affine in color and keeps the pivot of the others, so their order does not matter
    and one matrix applies all four.

    Args:
        rng: Source of randomness.
        brightness: The factor is drawn from 1 -/+ this value.
        contrast: The factor is drawn from 1 -/+ this value.
        saturation: The factor is drawn from 1 -/+ this value.
        hue: Largest hue shift, in turns of the color circle.

    Returns:
        Color matrix.

    Differs: the hue is rotated in the YIQ plane instead of HSV, and values are clipped to [0, 1]
    once, at the end.
    """
    light = uniform(rng, max(0.0, 1 - brightness), 1 + brightness)
    spread = uniform(rng, max(0.0, 1 - contrast), 1 + contrast)
    color = uniform(rng, max(0.0, 1 - saturation), 1 + saturation)
    angle = 2 * math.pi * uniform(rng, -hue, hue)

    luma = light * spread
    # Saturation scales the chroma plane, hue rotates it.
    cosine, sine = luma * color * math.cos(angle), luma * color * math.sin(angle)
    # Contrast pivots on the mean luma of the view.
    pivot = light * (1 - spread)
    return np.dot((luma, cosine, sine, pivot), _PARTS.reshape(4, 12)).reshape(3, 4)


def grayed(colors: ColorMatrix) -> ColorMatrix:
    """Replace each changed color by its luma.

    Args:
        colors: Color matrix.

    Returns:
        Color matrix whose three rows are equal.
    """
    return _GRAY @ colors


def recolored(
    pixels: UInt8[Tensor, "n h w 3"], colors: Float[Tensor, "n 3 4"] | None = None
) -> Float[Tensor, "n 3 h w"]:
    """Turn bytes into images with changed colors, on the device of the bytes.

    Args:
        pixels: RGB bytes.
        colors: Color matrix of each image; None changes nothing.

    Returns:
        RGB in [0, 1].
    """
    number, height, width, _ = pixels.shape
    images = torch.empty((number, 3, height, width), device=pixels.device)
    at_once = max(number, 1)
    if pixels.device.type == "cpu":
        at_once = _CPU_AT_ONCE

    for first in range(0, number, at_once):
        part = slice(first, first + at_once)
        if colors is None:
            torch.div(pixels[part].movedim(-1, 1), 255, out=images[part])
        else:
            _recolor(pixels[part], colors[part], images[part])
    return images


def _recolor(
    pixels: UInt8[Tensor, "n h w 3"],
    colors: Float[Tensor, "n 3 4"],
    images: Float[Tensor, "n 3 h w"],
) -> None:
    """Write recolored images."""
    floats = pixels.movedim(-1, 1).to(images.dtype, memory_format=torch.contiguous_format)
    luma = torch.from_numpy(_LUMA).to(images)
    pivots = (floats.mean((2, 3)) * luma).sum(1)

    columns = (colors / 255)[..., None, None].unbind(2)
    # Sums instead of a matrix product, which may be computed in half precision.
    torch.mul(columns[0], floats[:, :1], out=images)
    images.addcmul_(columns[1], floats[:, 1:2]).addcmul_(columns[2], floats[:, 2:])
    images.add_(columns[3] * pivots[:, None, None, None]).clamp_(0, 1)


def blurred(pixels: UInt8[Tensor, "h w 3"], deviation_px: float) -> UInt8[Tensor, "h w 3"]:
    """Blur bytes by a Gaussian that is cut off at three standard deviations.

    Args:
        pixels: RGB bytes.
        deviation_px: Standard deviation in pixels, above 0.

    Returns:
        The blurred bytes, rounded.
    """
    reach = max(1, round(3 * deviation_px))
    distances = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (distances / deviation_px) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)

    padded = F.pad(pixels.movedim(-1, 0)[None].float(), (reach,) * 4, mode="replicate")
    # With the channels last, the convolutions take half the time.
    padded = padded.contiguous(memory_format=torch.channels_last)
    # The kernel is separable: first along rows, then along columns.
    soft = F.conv2d(F.conv2d(padded, weights, groups=3), weights.mT, groups=3)[0]
    return soft.round_().clamp_(0, 255).movedim(0, -1).to(torch.uint8)

"""Training views and captions: random crops and flips of one photo, and one of its captions.

Views stay bytes; their colors change on the device (`maskfree.data.packed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.nn import functional as F

from maskfree.data.colors import ColorMatrix, color_jitter, uniform
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Tokens

Box = tuple[float, float, float, float]


def random_box(
    rng: np.random.Generator,
    photo_size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Draw a random crop box.

    Args:
        rng: Source of randomness.
        photo_size: Width and height of the photo in pixels.
        scale: Smallest and largest area of the crop, as a share of the photo's area.
        ratio: Smallest and largest aspect ratio (width / height in pixels), drawn log-uniformly.

    Returns:
        (left, top, right, bottom) as fractions of the photo's sides, in [0, 1]. If ten draws do not
        fit into the photo, the largest central crop within the aspect ratios.

    Source: Szegedy et al. 2014, section 6 (arXiv:1409.4842).
    """
    aspect = photo_size[0] / photo_size[1]
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))

    # Most draws fit; the bound keeps the time constant for extreme photos.
    for _ in range(10):
        area = uniform(rng, *scale)
        # Aspect ratio in fractions of the sides, not in pixels.
        shape = math.exp(uniform(rng, *log_ratio)) / aspect
        width, height = math.sqrt(area * shape), math.sqrt(area / shape)

        if width <= 1 and height <= 1:
            left, top = uniform(rng, 0, 1 - width), uniform(rng, 0, 1 - height)
            return left, top, min(left + width, 1.0), min(top + height, 1.0)

    # Fallback: the largest central crop.
    shape = min(max(aspect, ratio[0]), ratio[1]) / aspect
    width, height = min(1.0, shape), min(1.0, 1 / shape)
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2


def in_pixels(box: Box, photo_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Round a box to whole pixels, at least one.

    Args:
        box: (left, top, right, bottom) as fractions of the photo's sides, in [0, 1].
        photo_size: Width and height of the photo in pixels.

    Returns:
        (left, top, right, bottom) in pixels; right and bottom lie outside the box.
    """
    width, height = photo_size
    left = min(round(box[0] * width), width - 1)
    top = min(round(box[1] * height), height - 1)
    right = max(round(box[2] * width), left + 1)
    bottom = max(round(box[3] * height), top + 1)
    return left, top, right, bottom


def crop(
    pixels: UInt8[np.ndarray, "h w 3"],
    bounds: tuple[int, int, int, int],
    side_px: int,
    flip: bool = False,
) -> UInt8[Tensor, "s s 3"]:
    """Crop a photo and resize the crop to a square.

    Args:
        pixels: RGB bytes of the photo.
        bounds: (left, top, right, bottom) in pixels; right and bottom lie outside the crop.
        side_px: Side s of the square in pixels.
        flip: Whether to mirror the crop left to right.

    Returns:
        RGB bytes of the view.
    """
    left, top, right, bottom = bounds
    part = torch.from_numpy(pixels[None, top:bottom, left:right].copy())
    if flip:
        part = part.flip(2)

    # PyTorch has vector code for bytes with the channels last: a fourth of Pillow's time.
    size = (side_px, side_px)
    view = F.interpolate(part.permute(0, 3, 1, 2), size, mode="bilinear", antialias=True)
    return view.permute(0, 2, 3, 1)[0].contiguous()


class View(NamedTuple):
    """Random square crop of a photo."""

    image: UInt8[Tensor, "h w 3"]
    """RGB bytes, before the change of colors."""
    box: Box
    """Left, top, right, bottom in the photo before mirroring, as fractions of its sides."""
    flipped: bool
    """Whether the crop was mirrored."""
    colors: ColorMatrix | None = None
    """Matrix of the change of colors (`maskfree.data.colors`); None for none."""


def random_view(
    rng: np.random.Generator,
    pixels: UInt8[np.ndarray, "h w 3"],
    side_px: int,
    scale: tuple[float, float],
    mirror: float,
    jitter: tuple[float, float, float, float] | None = None,
) -> View:
    """Crop, mirror and jitter a photo at random.

    Args:
        rng: Source of randomness.
        pixels: RGB bytes of the photo.
        side_px: Side of the view in pixels.
        scale: Smallest and largest area of the view, as a share of the photo's area.
        mirror: Probability of a horizontal flip.
        jitter: Strength of brightness, contrast, saturation and hue jitter; None for none.

    Returns:
        The view.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = in_pixels(random_box(rng, (width, height), scale), (width, height))
    flipped = bool(rng.random() < mirror)

    image = crop(pixels, (left, top, right, bottom), side_px, flipped)
    box = (left / width, top / height, right / width, bottom / height)
    colors = None
    if jitter is not None:
        colors = color_jitter(rng, *jitter)
    return View(image, box, flipped, colors)


def random_caption(rng: np.random.Generator, captions: Sequence[str]) -> str | None:
    """Choose one of a photo's captions at random.

    Args:
        rng: Source of randomness; not used if there is no caption.
        captions: Captions of the photo.

    Returns:
        The caption, or None if there is none.
    """
    if not captions:
        return None
    return captions[int(rng.integers(len(captions)))]


def tokenized_captions(
    tokenizer: Tokenizer | None, captions: Sequence[str | None]
) -> Tokens | None:
    """Tokenize the captions of a batch.

    Args:
        tokenizer: Tokenizer; may be None if no photo has a caption.
        captions: Caption of each photo; either all are None or none is.

    Returns:
        Tokens of the captions, or None if there are none.
    """
    present = [caption for caption in captions if caption is not None]
    if not present:
        return None

    # The contrast pairs images and captions by index, so none may be missing.
    assert len(present) == len(captions), "a batch is either captioned or not"
    assert tokenizer is not None, "captions need a tokenizer"
    return tokenizer(present)


def tokenized_labels(
    tokenizer: Tokenizer, labels: Sequence[Sequence[str]], num_labels: int
) -> tuple[Tokens, Bool[Tensor, "b t"]]:
    """Tokenize the labels of a batch, filled up to the same number of texts per photo.

    Args:
        tokenizer: Tokenizer of the texts.
        labels: Texts of each photo, at most `num_labels`.
        num_labels: Number t of texts per photo.

    Returns:
        Tokens of b * t texts, photo by photo, and which of the texts are real.
    """
    texts = []
    for own in labels:
        texts += [*own, *[""] * (num_labels - len(own))]

    counts = torch.tensor([len(own) for own in labels])
    return tokenizer(texts), torch.arange(num_labels) < counts[:, None]

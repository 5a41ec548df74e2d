"""Training views and captions: random crops, flips, color jitter and blur of one photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskfree.text.tokenize import Tokenizer
from maskfree.types import Tokens

Box = tuple[float, float, float, float]

# Rows are Y (Rec. 601 luma), I and Q; a hue shift rotates the I-Q plane.
_RGB_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


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
        area = rng.uniform(*scale)
        # Aspect ratio in fractions of the sides, not in pixels.
        shape = math.exp(rng.uniform(*log_ratio)) / aspect
        width, height = math.sqrt(area * shape), math.sqrt(area / shape)

        if width <= 1 and height <= 1:
            left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            return left, top, min(left + width, 1.0), min(top + height, 1.0)

    # Fallback: the largest central crop.
    shape = min(max(aspect, ratio[0]), ratio[1]) / aspect
    width, height = min(1.0, shape), min(1.0, 1 / shape)
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2


def crop(photo: Image.Image, box: Box, side_px: int, flip: bool = False) -> Float[Tensor, "3 h w"]:
    """Crop a photo and resize the crop to a square.

    Args:
        photo: RGB image.
        box: (left, top, right, bottom) as fractions of the photo's sides, in [0, 1].
        side_px: Side of the square in pixels.
        flip: Whether to mirror the crop left to right.

    Returns:
        The view, with values in [0, 1].
    """
    width, height = photo.size
    bounds = (
        box[0] * width,
        box[1] * height,
        min(box[2] * width, width),
        min(box[3] * height, height),
    )

    view = photo.resize((side_px, side_px), Image.Resampling.BILINEAR, box=bounds, reducing_gap=2.0)

    pixels = np.asarray(view)
    channels_first = np.ascontiguousarray((pixels[:, ::-1] if flip else pixels).transpose(2, 0, 1))
    return torch.from_numpy(channels_first).float().div_(255)


class View(NamedTuple):
    """Random square crop of a photo."""

    image: Float[Tensor, "3 h w"]
    """RGB in [0, 1]."""
    box: Box
    """Left, top, right, bottom in the photo before mirroring, as fractions of its sides."""
    flipped: bool
    """Whether the crop was mirrored."""


def random_view(
    rng: np.random.Generator,
    photo: Image.Image,
    side_px: int,
    scale: tuple[float, float],
    mirror: float,
    jitter: tuple[float, float, float, float] | None = None,
) -> View:
    """Crop, mirror and jitter a photo at random.

    Args:
        rng: Source of randomness.
        photo: RGB image.
        side_px: Side of the view in pixels.
        scale: Smallest and largest area of the view, as a share of the photo's area.
        mirror: Probability of a horizontal flip.
        jitter: Strength of brightness, contrast, saturation and hue jitter; None for none.

    Returns:
        The view.
    """
    box = random_box(rng, photo.size, scale)
    flipped = bool(rng.random() < mirror)
    image = crop(photo, box, side_px, flipped)
    if jitter is not None:
        image = color_jitter(image, rng, *jitter)
    return View(image, box, flipped)


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


def color_jitter(
    image: Float[Tensor, "3 h w"],
    rng: np.random.Generator,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
) -> Float[Tensor, "3 h w"]:
    """Change brightness, contrast, saturation and hue at random.

    Every step is affine in color and keeps the pivot of the others, so their order does not matter
    and one 3x3 matrix applies all four.

    Args:
        image: Image with values in [0, 1].
        rng: Source of randomness.
        brightness: The factor is drawn from 1 -/+ this value.
        contrast: The factor is drawn from 1 -/+ this value.
        saturation: The factor is drawn from 1 -/+ this value.
        hue: Largest hue shift, in turns of the color circle.

    Returns:
        The changed image, with values in [0, 1].

    Differs: the hue is rotated in the YIQ plane instead of HSV, and values are clipped to [0, 1]
    once, at the end.
    """
    light, spread, color = (
        rng.uniform(max(0.0, 1 - amount), 1 + amount)
        for amount in (brightness, contrast, saturation)
    )

    # Saturation scales the chroma plane, hue rotates it.
    angle = 2 * math.pi * rng.uniform(-hue, hue)
    cosine, sine = color * math.cos(angle), color * math.sin(angle)
    chroma = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])

    matrix = torch.from_numpy(light * spread * (_YIQ_TO_RGB @ chroma @ _RGB_TO_YIQ)).to(image.dtype)

    # Contrast pivots on the mean luma of the image.
    luma = torch.from_numpy(_RGB_TO_YIQ[0]).to(image.dtype) @ image.mean(dim=(1, 2))
    flat = torch.addmm(light * (1 - spread) * luma, matrix, image.flatten(1))
    return flat.clamp_(0, 1).view_as(image)


def to_grayscale(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Replace each color by its luma.

    Args:
        image: RGB image.

    Returns:
        The image with three equal channels.
    """
    luma = torch.from_numpy(_RGB_TO_YIQ[0]).to(image.dtype)
    return torch.einsum("c,chw->hw", luma, image).expand(3, -1, -1).contiguous()


def blurred(image: Float[Tensor, "3 h w"], deviation_px: float) -> Float[Tensor, "3 h w"]:
    """Blur an image by a Gaussian that is cut off at three standard deviations.

    Args:
        image: Image to blur.
        deviation_px: Standard deviation in pixels, above 0.

    Returns:
        The blurred image, of the same size.
    """
    reach = max(1, round(3 * deviation_px))
    distances = torch.arange(-reach, reach + 1, dtype=image.dtype)
    weights = torch.exp(-0.5 * (distances / deviation_px) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)

    # The kernel is separable: first along rows, then along columns.
    padded = F.pad(image[None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights, groups=3), weights.mT, groups=3)[0]

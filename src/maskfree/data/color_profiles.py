"""Convert images to sRGB by their ICC color profiles."""

from __future__ import annotations

import io
import logging
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

log = logging.getLogger(__name__)

# Color space of a profile -> Pillow's mode.
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
# Values per channel at which a profile is compared with sRGB.
_PROBE = 9


def to_srgb(
    image: Image.Image, profile: bytes | None, name: str, in_place: bool = False
) -> Image.Image:
    """Convert an image to sRGB by its color profile.

    A profile that cannot be used is ignored, which is logged.

    Args:
        image: Image of mode L, RGB, CMYK or LAB.
        profile: Bytes of its ICC profile, if it has one.
        name: Name of the photo in the log.
        in_place: Whether `image` may be changed, which saves the memory of a copy.

    Returns:
        The image in RGB; `image` itself where nothing changes.
    """
    if profile:
        try:
            return _converted(image, profile, in_place)
        # LittleCMS raises many kinds of errors on a damaged profile.
        except Exception as error:
            reason = " ".join(str(error).split())
            log.warning("%s: its color profile is ignored, sRGB is assumed: %s", name, reason)

    # A LAB image needs a transform even without a profile.
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        srgb = ImageCms.createProfile("sRGB")
        return _apply(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))

    if image.mode != "RGB":
        image = image.convert("RGB")
    return image


def _converted(image: Image.Image, profile: bytes, in_place: bool) -> Image.Image:
    """Convert an image by a profile of its color space."""
    mode, transform = _transform(profile)
    # A gray photo may still have the profile of the colors that it was made from.
    if (image.mode, mode) == ("L", "RGB"):
        image = image.convert("RGB")

    if image.mode != mode:
        raise ValueError(f"it is one for {mode}, the photo is {image.mode}")

    if transform is None:
        return image
    if mode == "RGB" and in_place:
        ImageCms.applyTransform(image, transform, inPlace=True)
        return image
    return _apply(image, transform)


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Mode of a profile and its transform to sRGB; None if the transform changes nothing."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = str(getattr(opened.profile, "xcolor_space", "nothing")).strip()

    if space not in _SPACES:
        raise ValueError(f"it is one for {space}")

    mode = _SPACES[space]
    # Without its cache, threads can share the transform.
    flags = ImageCms.Flags.NOCACHE
    # The 256 gray values are few enough to be converted exactly.
    if mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE

    transform = ImageCms.buildTransform(
        opened, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags
    )
    if mode == "RGB" and _is_srgb(transform):
        return mode, None
    return mode, transform


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform of RGB moves no color by more than rounding."""
    steps = np.linspace(0, 255, _PROBE).astype(np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    converted = np.asarray(_apply(Image.fromarray(colors), transform)).astype(int)
    return bool(np.abs(converted - colors).max() <= 1)


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """Apply a transform to an image, for gray by a lookup table."""
    # By a lookup table of all 256 grays.
    if image.mode == "L":
        ramp = _apply_to_all(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), transform)
        channels = [image.point(list(channel.tobytes())) for channel in ramp.split()]
        return Image.merge("RGB", channels)
    return _apply_to_all(image, transform)


def _apply_to_all(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """Apply a transform to every pixel."""
    converted = ImageCms.applyTransform(image, transform)
    # There is no result only if the conversion is in place.
    assert converted is not None
    return converted

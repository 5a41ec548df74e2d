"""Color profiles: what a photo's own ICC profile makes of its values, as sRGB."""

from __future__ import annotations

import io
import logging
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

log = logging.getLogger(__name__)

_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # of a profile -> Pillow's mode
_PROBE = 9  # values of each channel by which a profile is compared with sRGB


def to_srgb(
    image: Image.Image, profile: bytes | None, name: str, in_place: bool = False
) -> Image.Image:
    """Convert a picture to sRGB by its profile; one that cannot be used is ignored, and that is logged.

    Args:
        image: A picture of mode L, RGB, CMYK or LAB.
        profile: The bytes of its ICC profile, if it has one.
        name: What the photo is called in the log.
        in_place: Whether IMAGE may be changed, which saves the memory of another.

    Returns:
        The picture in RGB; IMAGE itself where nothing changes.
    """
    if profile:
        try:
            return _converted(image, profile, in_place)
        except Exception as error:  # a damaged profile makes LittleCMS raise nearly anything
            reason = " ".join(str(error).split())
            log.warning("%s: its color profile is ignored, sRGB is assumed: %s", name, reason)
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return _apply(
            image, ImageCms.buildTransform(lab, ImageCms.createProfile("sRGB"), "LAB", "RGB")
        )
    return image if image.mode == "RGB" else image.convert("RGB")


def _converted(image: Image.Image, profile: bytes, in_place: bool) -> Image.Image:
    """IMAGE in sRGB by a PROFILE that fits it."""
    mode, transform = _transform(profile)
    if (image.mode, mode) == (
        "L",
        "RGB",
    ):  # a gray photo with the profile of the colors that it was made of
        image = image.convert("RGB")
    if image.mode != mode:
        raise ValueError(f"it is one for {mode}, the photo is {image.mode}")
    if transform is not None and mode == "RGB" and in_place:
        ImageCms.applyTransform(image, transform, inPlace=True)
        return image
    return image if transform is None else _apply(image, transform)


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode that a profile is for, and its way to sRGB; None where that changes nothing."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = str(getattr(opened.profile, "xcolor_space", "nothing")).strip()
    if space not in _SPACES:
        raise ValueError(f"it is one for {space}")
    mode = _SPACES[space]
    flags = ImageCms.Flags.NOCACHE  # so that threads can share it
    if mode == "L":
        flags |= ImageCms.Flags.NOOPTIMIZE  # 256 values are few enough to be exact
    transform = ImageCms.buildTransform(
        opened, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags
    )
    return mode, None if mode == "RGB" and _is_srgb(transform) else transform


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform of RGB moves no color by more than a rounding."""
    steps = np.linspace(0, 255, _PROBE).astype(np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    seen = np.asarray(_apply(Image.fromarray(colors), transform)).astype(int)
    return bool(np.abs(seen - colors).max() <= 1)


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    if image.mode == "L":  # by a table of all grays
        ramp = _apply_to_all(Image.fromarray(np.arange(256, dtype=np.uint8)[None]), transform)
        return Image.merge(
            "RGB", [image.point(list(channel.tobytes())) for channel in ramp.split()]
        )
    return _apply_to_all(image, transform)


def _apply_to_all(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # only in place there is no result
    return converted

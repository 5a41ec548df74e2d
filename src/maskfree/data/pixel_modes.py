"""Convert pixels of any Pillow mode to upright sRGB on a white background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, ImageChops

from maskfree.data.color_profiles import to_srgb
from maskfree.data.decoding import PictureError, orientation, raw_mode
from maskfree.data.tiff_variants import bits_of, check_tiff, is_white_zero

LOW_BITS = {"L;2": 85, "L;4": 17}
"""Factor by which Pillow scales grays of 2 and 4 bits, so that the highest becomes 255."""
# EXIF orientation -> the transposition that makes the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Rows converted at a time, since floats of the whole photo would need several times its memory.
_ROWS_AT_ONCE = 256


def upright(image: Image.Image, turn: int) -> Image.Image:
    """Apply an EXIF orientation.

    Args:
        image: Loaded image.
        turn: EXIF orientation, 1 to 8.

    Returns:
        The upright image; `image` itself for orientation 1.
    """
    if turn not in _UPRIGHT:
        return image
    return image.transpose(_UPRIGHT[turn])


def to_rgb(image: Image.Image, name: str, owned: bool = False) -> Image.Image:
    """Decode an image to upright sRGB.

    The color profile is applied, and transparency is put on white.

    Args:
        image: Image of any mode, loaded or not.
        name: Name of the image in messages.
        owned: Whether the caller no longer needs `image`, so that its memory can be freed early.

    Returns:
        An RGB image without metadata: nothing is left to be applied to it.

    Raises:
        ValueError: The image is of a kind that would be read wrongly.
        Exception: Any error of Pillow's decoders on a damaged file.
    """
    # Nothing is left to be applied.
    if type(image) is Image.Image and image.mode == "RGB" and not image.info:
        return image

    check_tiff(image, name)
    stored = raw_mode(image)
    image.load()
    # Only after loading, which makes a TIFF upright.
    turn = orientation(image)

    colors, alpha = _split(image, stored, name)
    mine = owned or colors is not image

    # Free the original: else three copies of a large photo are in memory.
    if owned and colors is not image:
        image.close()

    rgb = to_srgb(colors, image.info.get("icc_profile"), name, in_place=mine)
    del colors

    if alpha is not None:
        rgb.paste("white", mask=ImageChops.invert(alpha))

    turned = upright(rgb, turn)
    # The caller's image keeps its metadata.
    if turned is image:
        turned = turned.copy()
    turned.info = {}
    return turned


def _split(image: Image.Image, stored: str, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Split an image into colors (L, RGB, CMYK or LAB) and opacity, if it has any."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _wide_gray(image, name)
    if image.mode in ("1", "L"):
        return image.convert("L"), _opaque_gray(image, LOW_BITS.get(stored, 1))
    if image.mode == "RGB" and "transparency" in image.info and "16" in stored:
        raise PictureError(
            f"{name} has 16 bits and a transparent color: save it with an alpha channel"
        )

    if image.mode in ("LA", "La"):
        pairs = image.convert("LA")
        return pairs.getchannel("L"), pairs.getchannel("A")

    if image.has_transparency_data:
        layers = image
        if image.mode != "RGBA":
            layers = image.convert("RGBA")
        return layers.convert("RGB"), layers.getchannel("A")

    if image.mode not in ("RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    return image, None


def _opaque_gray(image: Image.Image, scale: int) -> Image.Image | None:
    """Opacity of an 8-bit gray image with one transparent value."""
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return None
    opacity = [255] * 256
    if 0 <= key * scale < 256:
        opacity[key * scale] = 0
    return image.convert("L").point(opacity)


def _wide_gray(image: Image.Image, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Convert grays of 16 or 32 bits to 8, with their opacity."""
    values = np.asarray(image)
    white = _white_value(image, values, name)
    inverted = is_white_zero(image)

    def gray(rows: Num[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """Scale rows to 8 bits.

        Args:
            rows: Some rows of the image.

        Returns:
            The rows, with white as 255.
        """
        # Values that are not finite count as 0.
        finite = np.nan_to_num(rows.astype(np.float32), nan=0, posinf=0, neginf=0)
        share = finite.clip(0, white) / np.float32(white)
        if inverted:
            share = 1 - share
        return np.rint(share * 255).astype(np.uint8)

    key = image.info.get("transparency")
    if not isinstance(key, int):
        return _by_rows(values, gray), None

    opacity = _by_rows(values, lambda rows: np.where(rows == key, 0, 255).astype(np.uint8))
    return _by_rows(values, gray), opacity


def _white_value(image: Image.Image, values: Num[np.ndarray, "h w"], name: str) -> float:
    """The value that stands for white (or for black if 0 is white)."""
    # 12-bit TIFFs are stored in 16 bits.
    if image.mode.startswith("I;16") and bits_of(image) == 12:
        return 4095.0
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.format == "PPM" and image.mode == "I":
        return 65535.0

    finite = values
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
    if finite.min(initial=0) < 0:
        raise PictureError(
            f"{name} holds negative numbers, which are no brightness: save it as PNG"
        )

    # The smallest usual scale that holds all values.
    highest = float(finite.max(initial=0))
    for scale in (1.0, 255.0, 65535.0):
        if highest <= scale:
            return scale
    return highest


def _by_rows(
    values: Num[np.ndarray, "h w"],
    change: Callable[[Num[np.ndarray, "h w"]], UInt8[np.ndarray, "h w"]],
) -> Image.Image:
    """Apply a function to some rows at a time."""
    changed = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS_AT_ONCE):
        changed[top : top + _ROWS_AT_ONCE] = change(values[top : top + _ROWS_AT_ONCE])
    return Image.fromarray(changed)

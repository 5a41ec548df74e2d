"""Read maps of ids: images whose pixels are class, object or region numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt16
from PIL import Image

from maskfree.data.decoding import (
    PictureError,
    check_size,
    one_line_errors,
    open_picture,
    orientation,
    raw_mode,
)
from maskfree.data.pixel_modes import LOW_BITS, upright
from maskfree.data.tiff_variants import check_tiff, is_white_zero

_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "JPEG", "WEBP", "AVIF")
# Formats that change pixel values.
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")
_MAX_ID = 65535


def read_ids(
    path: Path, what: str = "index map", grays_as_colors: bool = False
) -> UInt16[np.ndarray, "h w"]:
    """Read the ids of a map as they are stored.

    Ids are palette indices or gray values of 1, 2, 4, 8 or 16 bits, and are never scaled.

    Args:
        path: A PNG, TIFF, BMP or GIF file.
        what: Name of the map in messages.
        grays_as_colors: Whether RGB with three equal channels is accepted as gray.

    Returns:
        The id of each pixel, upright.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, is no such image, or is larger than a photo may be.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} {path}")

    name = f"the {what} {path}"
    try:
        with (
            path.open("rb") as file,
            one_line_errors(name),
            open_picture(file, name, _FORMATS) as image,
        ):
            return _ids_of(image, name, grays_as_colors)
    except PermissionError as error:
        raise PermissionError(f"{name} cannot be read: {error.strerror}") from error


def _ids_of(image: Image.Image, name: str, grays_as_colors: bool) -> UInt16[np.ndarray, "h w"]:
    """Ids of an opened image."""
    check_size(image.width, image.height, name)
    check_tiff(image, name)

    if image.format in _LOSSY:
        raise PictureError(f"{name} is {image.format}, which does not keep ids: save it as PNG")

    if is_white_zero(image):
        raise PictureError(
            f"{name} is a TIFF in which 0 is white, so that its ids are unclear: save it as PNG"
        )

    # The raw mode is lost when the image is loaded.
    stored = raw_mode(image)
    image.load()
    turned = upright(image, orientation(image))

    if turned.mode in ("RGB", "RGBA", "LA") and grays_as_colors:
        values = _grays(turned, name)
    elif turned.mode in ("1", "L", "P", "I") or turned.mode.startswith("I;16"):
        values = np.asarray(turned)
    else:
        raise PictureError(
            f"{name} has mode {turned.mode}: it needs one channel of ids, gray or with a palette"
        )

    if values.size and (values.max() > _MAX_ID or values.min() < 0):
        wrong = values.max()
        if values.min() < 0:
            wrong = values.min()
        raise PictureError(f"{name} holds {wrong}: ids run from 0 to {_MAX_ID}")

    # Pillow scales grays of 2 and 4 bits to 8; undo it.
    return values.astype(np.uint16) // LOW_BITS.get(stored, 1)


def _grays(image: Image.Image, name: str) -> np.ndarray:
    """The value that all channels of an image share; transparent pixels must be 0."""
    layers = np.asarray(image)
    colors = layers[..., :3]
    if image.mode == "LA":
        colors = layers[..., :1]

    if not (colors == colors[..., :1]).all():
        raise PictureError(f"{name} is in colors: give a picture of ids, gray or with a palette")

    if image.mode != "RGB" and ((layers[..., -1] != 255) & (colors[..., 0] != 0)).any():
        raise PictureError(
            f"{name} is transparent in places: give a picture of ids, gray or with a palette"
        )
    return colors[..., 0]

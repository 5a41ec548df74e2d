"""Decode any photo (file, bytes, Pillow image, array, tensor) to upright 8-bit sRGB."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, runtime_checkable
from urllib.parse import unquote, urlsplit

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from maskfree.data.decoding import (
    MAX_PIXELS,
    PictureError,
    check_size,
    one_line_errors,
    open_picture,
)
from maskfree.data.photo_urls import download, is_url
from maskfree.data.pixel_modes import to_rgb

# Rows copied at a time, so that the copy needs little memory beside the photo.
_ROWS_AT_ONCE = 256


@runtime_checkable
class TensorLike(Protocol):
    """The methods of a PyTorch tensor that are used here, because importing torch takes seconds."""

    def detach(self) -> Any:
        """Detach the tensor from the graph.

        Returns:
            The tensor without its gradient.
        """

    def is_floating_point(self) -> bool:
        """Tell whether the tensor holds floats.

        Returns:
            True for a floating-point type.
        """
        ...


PhotoLike: TypeAlias = (
    str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray | TensorLike
)


def read_photo(
    source: PhotoLike | object, max_pixels: int = MAX_PIXELS, decode_px: int = 0
) -> Image.Image:
    """Read the first frame of a photo as upright RGB.

    The EXIF orientation and the color profile are applied, and transparency is put on white.
    Reading the result again changes nothing.

    Args:
        source: A path, a web address, a file open in binary mode, the bytes of an encoded photo, a
            Pillow image, an array or a PyTorch tensor. An array is (h, w), (h, w, 1), (h, w, 3) or
            (h, w, 4): 8 or 16 bits, booleans, or floats in [0, 1]. A tensor may also have its
            channels first; where both orders fit, they are first. A file of 32-bit gray values is
            scaled by the smallest of 1, 255 and 65535 that is not below its maximum.
        max_pixels: Largest number of pixels that is accepted.
        decode_px: If not 0, a JPEG whose shorter side is at least twice as long may be decoded at
            1/2, 1/4 or 1/8 of its size, as long as that side keeps this many pixels.

    Returns:
        An image of mode RGB without metadata.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file or the web address cannot be read.
        ValueError: The source is no photo, is damaged, or has too many pixels.
    """
    name = photo_name(source)
    if is_url(source):
        source = download(source)

    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(os.fspath(source)), max_pixels, decode_px)

    if isinstance(source, bytes | bytearray | memoryview):
        source = io.BytesIO(source)

    if isinstance(source, Image.Image):
        with one_line_errors(name):
            check_size(source.width, source.height, name, max_pixels)
            return to_rgb(source, name)

    if hasattr(source, "read"):
        with one_line_errors(name), open_picture(source, name) as image:
            return _decode(image, name, max_pixels, decode_px)

    # Last, as the check takes longest.
    if isinstance(source, TensorLike):
        return _from_array(_to_array(source), max_pixels)

    raise PictureError(
        f"a {type(source).__name__} is no photo: give a path, the bytes or the open file of one, "
        "a Pillow picture, an array or a tensor; for many photos use a list, or segment_many"
    )


def photo_name(source: PhotoLike | object) -> str:
    """Name a photo in messages.

    Args:
        source: Anything that `read_photo` takes.

    Returns:
        The file's name, or "photo" for a source without one.
    """
    if is_url(source):
        return Path(unquote(urlsplit(source).path)).name or "photo"
    if isinstance(source, str | os.PathLike):
        return Path(os.fspath(source)).name
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    if not isinstance(name, str):
        return "photo"
    return Path(name).name or "photo"


def pixels_of(photo: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Copy the pixels of an RGB image with little extra memory.

    Args:
        photo: An image of mode RGB.

    Returns:
        Its pixels. Converting with numpy alone would need twice their memory on the way.
    """
    pixels = np.empty((photo.height, photo.width, 3), np.uint8)
    for top in range(0, photo.height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, photo.height)
        pixels[top:bottom] = np.asarray(photo.crop((0, top, photo.width, bottom)))
    return pixels


def _from_path(path: Path, max_pixels: int, decode_px: int) -> Image.Image:
    """Read a photo from a path."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give a photo")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")

    try:
        with (
            path.open("rb") as file,
            one_line_errors(str(path)),
            open_picture(file, str(path)) as image,
        ):
            return _decode(image, str(path), max_pixels, decode_px)
    except PermissionError as error:
        raise PermissionError(f"{path} cannot be read: {error.strerror}") from error


def _decode(image: Image.Image, name: str, max_pixels: int, decode_px: int) -> Image.Image:
    """Decode an opened photo, a JPEG at a reduced size if allowed."""
    check_size(image.width, image.height, name, max_pixels)
    if decode_px:
        # JPEG can be decoded at a reduced size; most other formats ignore this.
        shrink = decode_px / min(image.size)
        image.draft("RGB", (round(image.width * shrink), round(image.height * shrink)))
    return to_rgb(image, name, owned=True)


def _to_array(tensor: TensorLike) -> np.ndarray:
    """Values of a tensor, with its channels last."""
    try:
        plain = tensor.detach().cpu()
        # numpy has no bfloat16, so floats become 32 bits.
        if plain.is_floating_point():
            plain = plain.float()
        array = plain.numpy()
    except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
        raise PictureError(f"the tensor is no photo: {' '.join(str(error).split())}") from error

    # Three channels, or 1 or 4 if the last axis cannot be the channels.
    if array.ndim == 3 and (
        array.shape[0] == 3 or (array.shape[0] in (1, 4) and array.shape[2] not in (1, 3, 4))
    ):
        return np.moveaxis(array, 0, -1)

    return array


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    """Convert an array of any supported type to an RGB image."""
    if array.ndim == 2:
        array = array[..., None]

    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        message = f"an array of shape {array.shape} is no photo: (h, w), (h, w, 3) or (h, w, 4) are"
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            message += "; channels come last"
        raise PictureError(message)

    check_size(array.shape[1], array.shape[0], "the array", max_pixels)

    # Pillow needs the machine's byte order.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    # Bring all types to 8 bits, 16 bits by way of floats.
    if array.dtype == np.uint16:
        array = array / np.float32(65535)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255

    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise PictureError("an array of floats is a photo if all of them lie in [0, 1]")
        array = np.rint(array * 255).astype(np.uint8)

    if array.dtype != np.uint8:
        raise PictureError(
            f"an array of {array.dtype} is no photo: 8 or 16 bits, booleans or floats in [0, 1] are"
        )

    # Pillow takes gray without an axis of channels.
    if array.shape[2] == 1:
        array = array[..., 0]
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)), "the array")

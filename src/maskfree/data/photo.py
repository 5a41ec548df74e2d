"""Any photo, as upright 8-bit RGB: files of every mode that Pillow reads, Pillow images and arrays."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from PIL import Image

PhotoLike: TypeAlias = str | Path | BinaryIO | Image.Image | np.ndarray

MAX_PIXELS = 178_956_970  # above this Pillow itself takes a file for a decompression bomb
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_photo(source: PhotoLike, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the first frame of a photo as RGB, with its EXIF orientation applied and transparency on white.

    An array is (h, w), (h, w, 1), (h, w, 3) or (h, w, 4): 8 or 16 bits, booleans, or floats in [0, 1]. A file of 32-bit
    greys is read on the least of the scales 1, 255 and 65535 that holds them.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is no photo, a damaged one, or one of more than MAX_PIXELS.
    """
    name = photo_name(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            raise IsADirectoryError(f"{source} is a folder: give a photo")
        if not path.exists():
            raise FileNotFoundError(f"there is no file {source}")
        try:
            with path.open("rb") as file:
                return _decode(file, str(source), max_pixels)
        except PermissionError as error:
            raise PermissionError(f"{source} cannot be read: {error.strerror}") from error
    return _decode(source, name, max_pixels)


def photo_name(source: PhotoLike) -> str:
    """Return the file's name, or "photo" for what has none."""
    if isinstance(source, str | Path):
        return Path(source).name
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return Path(name).name if isinstance(name, str) and Path(name).name else "photo"


def _decode(source: BinaryIO | Image.Image, name: str, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of harmless oddities in a file; what matters raises
            image: Image.Image = source if isinstance(source, Image.Image) else Image.open(source)
            _check_size(image.width, image.height, name, max_pixels)
            orientation = _orientation(image)
            upright = _to_rgb(image)
    except (ValueError, PermissionError):
        raise
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} has too many pixels: {max_pixels} are the most") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise ValueError(f"{name} is damaged: {error or type(error).__name__}") from error
    return upright.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else upright


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if not 0 < width * height <= max_pixels:
        raise ValueError(f"{name} has {width}x{height} pixels: 1 to {max_pixels} are allowed")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a photo with damaged metadata is still a photo
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image).astype(np.float32) / 65535)
    if image.mode in ("I", "F"):
        return _grey(_on_unit_scale(np.asarray(image).astype(np.float32)))
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(f"an array of shape {array.shape} is no photo: (h, w), (h, w, 3) or (h, w, 4) are")
    _check_size(array.shape[1], array.shape[0], "the array", max_pixels)
    if array.dtype == np.uint16:
        array = array / np.float32(65535)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError("an array of floats is a photo if all of them lie in [0, 1]")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"an array of {array.dtype} is no photo: 8 or 16 bits, booleans or floats in [0, 1] are")
    return _to_rgb(Image.fromarray(array[..., 0] if array.shape[2] == 1 else np.ascontiguousarray(array)))


def _on_unit_scale(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values, nan=0, posinf=0, neginf=0).clip(min=0)
    most = float(values.max())
    return values / next((scale for scale in (1, 255, 65535) if most <= scale), most)


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")

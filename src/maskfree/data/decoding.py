"""Open image files: supported formats, size limits and one-line errors."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

MAX_BYTES = 2**29
"""Most bytes of a decoded image in Pillow: 4 per pixel, whatever the file's mode."""
MAX_PIXELS = MAX_BYTES // 4
SWAPPING = (5, 6, 7, 8)
"""EXIF orientations that swap rows and columns."""

# Excludes formats that start another program (EPS) or hold no photo (HDF5, GRIB, MPEG, fonts).
PHOTO_FORMATS = (
    *("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "MPO", "JPEG2000", "PPM"),
    *("TGA", "QOI", "PSD", "ICO", "PCX", "SGI"),
)
_ORIENTATION_TAG = 0x0112
_HEAD_BYTES = 32
_PNG = b"\x89PNG\r\n\x1a\n"
# Major brands of ISO base media files (bytes 8 to 12).
_BRANDS = {
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
    ),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "CR3 raw",
}
# First bytes of formats that are recognized only to name them in errors.
_MAGIC = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"FUJIFILMCCD-RAW": "raw",
}


class PictureError(ValueError):
    """An image that is refused, with a one-line message that names it."""


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """Turn errors of Pillow's decoders into a one-line ValueError.

    Args:
        name: Name of the image in the message.

    Yields:
        Nothing; the body opens or decodes the image.

    Raises:
        ValueError: The image cannot be read.
        PermissionError: The file may not be read.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of harmless oddities; real problems raise.
            warnings.simplefilter("ignore")
            yield
    except (PictureError, PermissionError, FileNotFoundError):
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has too many pixels: {MAX_PIXELS} are the most") from error
    # Decoders raise many kinds of errors on damaged files.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{name} is damaged: {reason}") from error


def open_picture(source: Any, name: str, formats: Sequence[str] = PHOTO_FORMATS) -> Image.Image:
    """Read the header of an image; its pixels are decoded when they are needed.

    Args:
        source: A file open in binary mode, or any object with its read methods.
        name: Name of the image in messages.
        formats: Pillow's names of the allowed formats.

    Returns:
        The Pillow image, not yet loaded.

    Raises:
        ValueError: The format cannot be read; for HEIC the message names the extra that reads it.
    """
    if not source.seekable():
        source = io.BytesIO(source.read())

    source.seek(0)
    head = source.read(_HEAD_BYTES)
    source.seek(0)

    if not isinstance(head, bytes):
        raise PictureError(f"{name} is open as text: open a photo in binary mode")

    registered = _registered()
    known = [each for each in formats if each in registered]
    try:
        return Image.open(source, formats=known)
    except UnidentifiedImageError as error:
        kind = _kind(head)
        if kind == "HEIC" and formats == PHOTO_FORMATS:
            return _open_heif(source, name)

        if kind is None:
            raise

        raise PictureError(
            f"{name} is a {kind} file, which cannot be read: save it as JPEG or PNG"
        ) from error


def check_size(width: int, height: int, name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Check that an image has pixels, and not too many.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        name: Name of the image in the message.
        max_pixels: Largest number of pixels that is allowed.

    Raises:
        ValueError: It has no pixel, or more than `max_pixels`.
    """
    if not 0 < width * height <= max_pixels:
        raise PictureError(f"{name} has {width}x{height} pixels: 1 to {max_pixels} are allowed")


def raw_mode(image: Image.Image) -> str:
    """Get Pillow's name of how the file stores its pixels, such as "L;4".

    Args:
        image: Image that is not loaded yet.

    Returns:
        The raw mode; empty for a loaded image.
    """
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""

    # The raw mode is the decoder's first argument, or its only one.
    arguments = tiles[0][3]
    if isinstance(arguments, tuple) and arguments:
        arguments = arguments[0]
    if not isinstance(arguments, str):
        return ""
    return arguments


def orientation(image: Image.Image) -> int:
    """Get the EXIF orientation that is still to be applied.

    Pillow applies the orientation of a TIFF itself when the image is loaded.

    Args:
        image: Image to look at.

    Returns:
        A number from 1 to 8; 1 if the metadata are damaged.
    """
    try:
        found = image.getexif().get(_ORIENTATION_TAG, 1)
    # Damaged metadata do not make the photo unusable.
    except Exception:
        return 1
    if found not in range(1, 9):
        return 1
    return found


@dataclass(frozen=True)
class PictureHeader:
    """What the header of an image file says."""

    format: str
    """Pillow's name of the format, such as "JPEG"."""
    size: tuple[int, int]
    """Width and height in pixels, after the EXIF orientation."""
    is_upright: bool
    """Whether the pixels are stored upright."""


def picture_header(path: Path) -> PictureHeader:
    """Read the header of an image.

    Only a PNG whose metadata follow its pixels is decoded completely.

    Args:
        path: Image file.

    Returns:
        The image's format, size and whether it is stored upright.

    Raises:
        ValueError: The file is damaged or is no supported image.
        OSError: The file cannot be read.
    """
    with (
        path.open("rb") as file,
        one_line_errors(str(path)),
        open_picture(file, str(path)) as image,
    ):
        check_size(image.width, image.height, str(path))
        kind = image.format or ""

        # Pillow has swapped the sides of a TIFF already.
        if kind == "TIFF":
            return PictureHeader(kind, image.size, orientation(image) == 1)

        # Reading EXIF data that follow the pixels would make Pillow decode them.
        if kind == "PNG" and "exif" not in image.info and not _may_be_turned(file):
            return PictureHeader(kind, image.size, is_upright=True)

        turn = orientation(image)
        size = image.size
        if turn in SWAPPING:
            size = (image.height, image.width)
        return PictureHeader(kind, size, is_upright=turn == 1)


def picture_size(path: Path) -> tuple[int, int]:
    """Read the upright width and height of an image from its header.

    Args:
        path: Image file.

    Returns:
        Width and height in pixels, after the EXIF orientation.

    Raises:
        ValueError: The file is damaged or is no supported image.
        OSError: The file cannot be read.
    """
    return picture_header(path).size


def _may_be_turned(png: Any) -> bool:
    """Whether a PNG has a chunk that may hold its orientation; pixel chunks are skipped."""
    png.seek(len(_PNG))
    while len(head := png.read(8)) == 8 and head[4:] != b"IEND":
        if head[4:] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            return True
        # Skip the content and its 4-byte checksum.
        png.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    return False


@cache
def _registered() -> frozenset[str]:
    """Formats that this build of Pillow supports."""
    Image.init()
    return frozenset(Image.OPEN)


def _kind(head: bytes) -> str | None:
    """Name the format of a file that Pillow does not know, by its first bytes."""
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _open_heif(source: Any, name: str) -> Image.Image:
    """Open a HEIC photo with the optional pillow-heif."""
    if find_spec("pillow_heif") is None:
        raise PictureError(
            f"{name} is a HEIC photo, which needs pillow-heif: pip install 'maskfree[heic]'"
        )

    from pillow_heif import register_heif_opener

    register_heif_opener()
    source.seek(0)
    return Image.open(source, formats=["HEIF"])

"""Opening the file of a picture: the formats that are read, how large it may be, and one line for what goes wrong."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

MAX_BYTES = 2**29
"""Most bytes of a decoded picture, as Pillow holds it: 4 a pixel, whatever the file's mode."""
MAX_PIXELS = MAX_BYTES // 4
SWAPPING = (5, 6, 7, 8)
"""EXIF orientations that turn rows into columns."""

# None that starts another program (EPS) or is no photo (HDF5, GRIB, MPEG, fonts).
PHOTO_FORMATS = (
    *("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "MPO", "JPEG2000", "PPM"),
    *("TGA", "QOI", "PSD", "ICO", "PCX", "SGI"),
)
_ORIENTATION_TAG = 0x0112
_HEAD_BYTES = 32
_PNG = b"\x89PNG\r\n\x1a\n"
_BRANDS = {
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
    ),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "CR3 raw",
}
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
    """A picture that is refused, in one line that names it."""


@contextmanager
def told_in_one_line(name: str) -> Iterator[None]:
    """Turn whatever Pillow's decoders raise about the picture NAME into a ValueError of one line.

    Args:
        name: What the picture is called in the message.

    Raises:
        ValueError: the picture cannot be read.
        PermissionError: the file may not be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of harmless oddities in a file; what matters raises
            yield
    except (PictureError, PermissionError, FileNotFoundError):
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has too many pixels: {MAX_PIXELS} are the most") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{name} is damaged: {reason}") from error


def open_picture(source: Any, name: str, formats: Sequence[str] = PHOTO_FORMATS) -> Image.Image:
    """Read the header of a picture; its pixels are decoded when they are needed.

    Args:
        source: The file, open in binary mode, or anything that reads as one.
        name: What it is called in messages.
        formats: Pillow's names of the formats that are allowed.

    Returns:
        Pillow's picture, not yet loaded.

    Raises:
        ValueError: it is of a format that cannot be read; HEIC names the extra that reads it.
    """
    if not source.seekable():
        source = io.BytesIO(source.read())
    source.seek(0)
    head = source.read(_HEAD_BYTES)
    source.seek(0)
    if not isinstance(head, bytes):
        raise PictureError(f"{name} is open as text: open a photo in binary mode")

    known = [each for each in formats if each in _registered()]
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
    """See that a picture NAME has pixels, and not too many.

    Raises:
        ValueError: it has none, or more than MAX_PIXELS.
    """
    if not 0 < width * height <= max_pixels:
        raise PictureError(f"{name} has {width}x{height} pixels: 1 to {max_pixels} are allowed")


def raw_mode(image: Image.Image) -> str:
    """Return Pillow's name for how the file stores its pixels, as "L;4"; empty when the picture is loaded."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else None
    if isinstance(args, tuple):
        args = args[0] if args else None
    return args if isinstance(args, str) else ""


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, that is still to be applied; Pillow has turned a TIFF once it is loaded."""
    try:
        found = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a photo with damaged metadata is still a photo
        return 1
    return found if found in range(1, 9) else 1


def picture_size(path: Path) -> tuple[int, int]:
    """Return the width and height of the picture at PATH as it is shown, upright, from its header.

    Only a PNG whose metadata follow its pixels is decoded as a whole.

    Raises:
        ValueError: it is no picture that can be read, or a damaged one.
        OSError: the file cannot be read.
    """
    with (
        path.open("rb") as file,
        told_in_one_line(str(path)),
        open_picture(file, str(path)) as image,
    ):
        check_size(image.width, image.height, str(path))
        if image.format == "TIFF":  # Pillow has swapped the sides already
            return image.size
        if image.format == "PNG" and "exif" not in image.info and not _may_be_turned(file):
            return image.size  # else Pillow decodes the pixels to see what comes after them
        swapped = orientation(image) in SWAPPING
        return (image.height, image.width) if swapped else image.size


def _may_be_turned(png: Any) -> bool:
    """Whether a PNG has metadata that may tell its orientation, wherever they are; pixels are passed over."""
    png.seek(len(_PNG))
    while len(head := png.read(8)) == 8 and head[4:] != b"IEND":
        if head[4:] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            return True
        png.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    return False


@cache
def _registered() -> frozenset[str]:
    """The formats that this Pillow was built with."""
    Image.init()
    return frozenset(Image.OPEN)


def _kind(head: bytes) -> str | None:
    """What a file that Pillow does not know is, by its first bytes."""
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _open_heif(source: Any, name: str) -> Image.Image:
    """Open a HEIC photo with the extra that reads it."""
    if find_spec("pillow_heif") is None:
        raise PictureError(
            f"{name} is a HEIC photo, which needs pillow-heif: pip install 'maskfree[heic]'"
        )
    from pillow_heif import register_heif_opener

    register_heif_opener()
    source.seek(0)
    return Image.open(source, formats=["HEIF"])

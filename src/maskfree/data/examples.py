"""An encoded photo with its captions as a source holds it, and its decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from maskfree.data.photo import read_photo

# fmt: off
PHOTO_SUFFIXES = (
    "jpg", "jpeg", "png", "webp", "jpe", "jfif", "tif", "tiff", "bmp", "dib", "gif", "avif",
    "heic", "heif", "hif", "jp2", "j2k", "jpx", "ppm", "pgm", "pnm", "tga", "qoi", "mpo",
)
# fmt: on
"""Suffixes of photos. Of a shard's files with one key, the first in this order is the photo."""
# Reasons why a sample cannot be used; `Example.problem` begins with one of them.
NO_PHOTO, UNREADABLE_PHOTO = "no photo", "unreadable photo"
NO_CAPTION, UNREADABLE_CAPTIONS = "no caption", "unreadable captions"
UNREADABLE_NAME, BROKEN_SHARD = "unreadable name", "broken shard"
REASONS = (
    NO_PHOTO,
    UNREADABLE_PHOTO,
    NO_CAPTION,
    UNREADABLE_CAPTIONS,
    UNREADABLE_NAME,
    BROKEN_SHARD,
)


@dataclass(frozen=True)
class Example:
    """An encoded photo with its captions."""

    key: str
    """Key of the sample in its source."""
    source: str
    """Shard or folder, for messages."""
    photo: bytes | Path = b""
    """Encoded bytes or the path of a file."""
    captions: tuple[str, ...] = ()
    """Captions; empty for an unlabeled photo."""
    problem: str = ""
    """Why the sample cannot be used, in one line; empty if it can.

    It begins with one of `REASONS`; details follow after a colon.
    """


def counted(numbers: Sequence[int], total: int | None = None) -> str:
    """Format how many samples were left out for each of `REASONS`.

    Args:
        numbers: Counts, in the order of `REASONS`.
        total: Number of all samples left out, if known; the rest is listed as "other".

    Returns:
        The counts that are not zero, separated by commas.

    Example:
        >>> counted((2, 0, 1, 0, 0, 0), total=4)
        '2 no photo, 1 no caption, 1 other'
    """
    texts = []
    for number, reason in zip(numbers, REASONS, strict=True):
        if number:
            texts.append(f"{number} {reason}")

    if total is not None and total != sum(numbers):
        texts.append(f"{total - sum(numbers)} other")
    return ", ".join(texts)


# At this side a random crop of a quarter of the area still has the 256 px of the largest views of
# the recipes; a larger photo would take longer to decode for nothing.
DECODE_PX = 512
"""Shorter side in pixels that decoding a training photo must keep."""


def decode(example: Example, decode_px: int) -> Image.Image:
    """Decode an example to an upright RGB photo.

    Args:
        example: Example to decode.
        decode_px: A JPEG whose shorter side is at least twice as long may be decoded at 1/2, 1/4 or
            1/8 of its size, as long as that side keeps this many pixels; 0 keeps the full size.

    Returns:
        The photo, of mode RGB.

    Raises:
        ValueError: The example has a problem, or its photo cannot be read.
        OSError: The file cannot be read.
    """
    if example.problem:
        raise ValueError(example.problem)
    return read_photo(example.photo, decode_px=decode_px)

"""One photo as it comes from a source, still encoded, and its decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from maskfree.data.photo import read_photo

PHOTO_SUFFIXES = (
    *(
        "jpg",
        "jpeg",
        "png",
        "webp",
        "jpe",
        "jfif",
        "tif",
        "tiff",
        "bmp",
        "dib",
        "gif",
        "avif",
        "heic",
        "heif",
        "hif",
    ),
    *("jp2", "j2k", "jpx", "ppm", "pgm", "pnm", "tga", "qoi", "mpo"),
)
"""Of the files that are photos, for every command; of a shard's files for one key the first in this order is it."""
# Why a sample cannot be used; `Example.problem` begins with one of them.
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
    """An encoded photo with its captions; `problem` is set where the source could not give them.

    It is one line: the reason, by which such samples are counted, and behind a colon what else there is to say.
    """

    key: str
    source: str
    """Shard or folder, for messages."""
    photo: bytes | Path = b""
    captions: tuple[str, ...] = ()
    problem: str = ""


def counted(numbers: Sequence[int], total: int | None = None) -> str:
    """Spell out how many samples were left out for each of `REASONS`, in their order.

    >>> counted((2, 0, 1, 0, 0, 0), total=4)
    '2 no photo, 1 no caption, 1 other'
    """
    told = [f"{number} {reason}" for number, reason in zip(numbers, REASONS, strict=True) if number]
    other = 0 if total is None else total - sum(numbers)
    return ", ".join([*told, f"{other} other"] if other else told)


def decode(example: Example, decode_px: int) -> Image.Image:
    """Decode to an upright RGB photo.

    A JPEG whose shorter side is at least twice DECODE_PX is decoded at a half, a quarter or an eighth of its size,
    as long as that side keeps DECODE_PX; 0 keeps the full size.

    Raises:
        ValueError: the example has a problem, or its photo cannot be read.
        OSError: the file cannot be read.
    """
    if example.problem:
        raise ValueError(example.problem)
    return read_photo(example.photo, decode_px=decode_px)

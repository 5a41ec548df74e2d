"""Detect TIFF files that Pillow reads wrongly, or differently from what viewers show."""

from __future__ import annotations

from PIL import Image

from maskfree.data.decoding import MAX_BYTES, PictureError

# Tag numbers.
_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 258, 259, 262
_SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT, _DNG = 277, 284, 322, 323, 339, 50706
_SIGNED = 2
_WHITE_IS_ZERO = 0


def check_tiff(image: Image.Image, name: str) -> None:
    """Check that Pillow decodes an image, if it is a TIFF, to what the file means.

    Args:
        image: Opened image.
        name: Name of the image in the message.

    Raises:
        ValueError: The TIFF is of a variant that Pillow reads wrongly.
    """
    problem = _problem(image)
    if problem:
        raise PictureError(f"{name} is a TIFF {problem}: save it as PNG")


def is_white_zero(image: Image.Image) -> bool:
    """Tell whether 0 stands for white in the file, which Pillow applies to 8 bits only.

    Args:
        image: Opened image.

    Returns:
        True for a TIFF of that kind.
    """
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def bits_of(image: Image.Image) -> int | None:
    """Get the bits per sample of a TIFF's first channel.

    Args:
        image: Opened image.

    Returns:
        The number of bits; None for other formats.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    return int(_first(tags.get(_BITS, 1)))


def _problem(image: Image.Image) -> str:
    """Describe what is wrong with a TIFF; empty if nothing is."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return ""

    # A compression of 1 means none.
    bits, raw = int(_first(tags.get(_BITS, 1))), tags.get(_COMPRESSION, 1) == 1
    signed = _first(tags.get(_SAMPLE_FORMAT, 1)) == _SIGNED
    tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_HEIGHT, 0))

    # Bit 0 of the subfile type marks a reduced version of another image.
    if _DNG in tags or int(tags.get(_SUBFILE, 0)) & 1:
        return "whose first picture is a preview, as in a camera's raw file"
    # A planar configuration of 2 means separate planes.
    if raw and bits > 8 and tags.get(_PLANAR, 1) == 2:
        return f"of {bits} bits in separate planes without compression"
    if not raw and bits > 8 and tags.prefix == b"MM" and (bits > 16 or signed):
        return f"of {bits} bits, big-endian and compressed"
    if signed and bits <= 8:
        return f"of {bits} bits with a sign"
    # A tile is decoded as a whole, so it must fit into memory, too.
    if tile * int(tags.get(_SAMPLES, 1)) * bits // 8 > MAX_BYTES:
        return f"with tiles of {tags[_TILE_WIDTH]}x{tags[_TILE_HEIGHT]} pixels"

    return ""


def _first(value: int | tuple[int, ...]) -> int:
    """First value of a tag, which may be a tuple."""
    if isinstance(value, tuple):
        return value[0]
    return value

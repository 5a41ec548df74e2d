"""Read the frames of animated images (GIF, WebP, PNG, AVIF), each fully composed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from maskfree.data.decoding import check_size, one_line_errors, open_picture
from maskfree.data.photo import read_photo

# A TIFF or MPO file of several images is no animation.
MOVING_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
# Formats that no video file is mistaken for.
_FORMATS = (*MOVING_FORMATS, "JPEG", "MPO", "TIFF", "BMP")
# Duration of a frame that has none.
_DEFAULT_MS = 100.0


def moving_frames(source: Path) -> tuple[int, float] | None:
    """Get the number of frames of an image file and their rate.

    Args:
        source: Image or video file.

    Returns:
        Number of frames and frames per second; None if the file is no image.

    Raises:
        ValueError: The image is damaged or has too many pixels.
    """
    with source.open("rb") as file, one_line_errors(str(source)):
        try:
            open_picture(file, str(source), _FORMATS).close()
        except UnidentifiedImageError:
            return None

    with _opened(source) as image:
        places = _places(image)
        image.seek(places.start)
        # The duration of a frame is known once it is decoded.
        image.load()
        return len(places), 1000 / (image.info.get("duration") or _DEFAULT_MS)


def moving_pictures(source: Path) -> Iterator[Image.Image]:
    """Read the frames of an image file one after the other.

    Args:
        source: Image file.

    Yields:
        Upright RGB images.

    Raises:
        ValueError: A frame is damaged.
    """
    with _opened(source) as image:
        places = _places(image)
        if len(places) == 1:
            yield read_photo(source)
            return

        for place in places:
            with one_line_errors(str(source)):
                image.seek(place)
                frame = read_photo(image.copy())
            yield frame


@contextmanager
def _opened(source: Path) -> Iterator[Image.Image]:
    """Open an image file and check its size."""
    with (
        source.open("rb") as file,
        one_line_errors(str(source)),
        open_picture(file, str(source), _FORMATS) as image,
    ):
        check_size(image.width, image.height, str(source))
        yield image


def _places(image: Image.Image) -> range:
    """Numbers of the frames, without the still image that a PNG may have for other viewers."""
    if image.format not in MOVING_FORMATS:
        return range(1)
    count = getattr(image, "n_frames", 1)
    first = 0
    # Pillow's `default_image` marks a still image before the animation.
    if count > 1 and getattr(image, "default_image", False):
        first = 1
    return range(first, count)

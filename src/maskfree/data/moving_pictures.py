"""The frames of animated pictures (GIF, WebP, PNG, AVIF), each composed as it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from maskfree.data.decoding import check_size, open_picture, told_in_one_line
from maskfree.data.photo import read_photo

MOVING_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")  # a TIFF or MPO of several pictures is no film
_FORMATS = (*MOVING_FORMATS, "JPEG", "MPO", "TIFF", "BMP")  # those that no video is taken for
_DEFAULT_MS = 100.0  # of a frame that does not say


def moving_frames(source: Path) -> tuple[int, float] | None:
    """Return the number of frames of a picture and how many it shows per second; None if SOURCE is no picture.

    Raises:
        ValueError: it is a damaged one, or one of too many pixels.
    """
    with source.open("rb") as file, told_in_one_line(str(source)):
        try:
            open_picture(file, str(source), _FORMATS).close()
        except UnidentifiedImageError:
            return None

    with _opened(source) as image:
        places = _places(image)
        image.seek(places.start)
        image.load()  # what a frame lasts is known once it is decoded
        return len(places), 1000 / (image.info.get("duration") or _DEFAULT_MS)


def moving_pictures(source: Path) -> Iterator[Image.Image]:
    """Yield the frames of a picture as upright RGB photos, one after the other.

    Raises:
        ValueError: a frame is damaged.
    """
    with _opened(source) as image:
        places = _places(image)
        if len(places) == 1:
            yield read_photo(source)
            return

        for place in places:
            with told_in_one_line(str(source)):
                image.seek(place)
                frame = read_photo(image.copy())
            yield frame


@contextmanager
def _opened(source: Path) -> Iterator[Image.Image]:
    with (
        source.open("rb") as file,
        told_in_one_line(str(source)),
        open_picture(file, str(source), _FORMATS) as image,
    ):
        check_size(image.width, image.height, str(source))
        yield image


def _places(image: Image.Image) -> range:
    """The numbers of the frames; a PNG may have a picture before them, for who cannot show the film."""
    if image.format not in MOVING_FORMATS:
        return range(1)
    count = getattr(image, "n_frames", 1)
    return range(1 if count > 1 and getattr(image, "default_image", False) else 0, count)

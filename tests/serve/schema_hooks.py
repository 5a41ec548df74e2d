"""What schemathesis sends as photos: good ones, their halves, and anything."""

from __future__ import annotations

import io

import numpy as np
import schemathesis
from hypothesis import strategies
from PIL import Image


def _photo(kind: str, size: tuple[int, int]) -> bytes:
    """Bytes of a photo of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


PHOTOS = [_photo("PNG", (33, 21)), _photo("JPEG", (16, 40)), _photo("WEBP", (1, 1))]
HALVES = [photo[: len(photo) // 2] for photo in PHOTOS]

schemathesis.openapi.format(
    "binary", strategies.sampled_from(PHOTOS + HALVES) | strategies.binary(max_size=200)
)

"""What schemathesis sends as photos: good ones, their halves, and anything.

Half of the forms also get words that the model knows: by chance alone none would reach it.
"""

from __future__ import annotations

import io
from typing import Any

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

INTERFACE = (
    '<View><Image name="i" value="$p"/><BrushLabels name="l" toName="i">'
    '<Label value="dog"/><Label value="sky"/></BrushLabels></View>'
)
KNOWN: dict[str, Any] = {
    "words": ["dog", "sky/sea"],
    "model": "",
    "background": "none",
    "templates": "",
    "schema": INTERFACE,
    "label_config": INTERFACE,
}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Give half of the forms fields that fit."""
    if not isinstance(body, dict) or len(repr(body)) % 2:
        return body
    return body | {name: value for name, value in KNOWN.items() if name in body}

"""What schemathesis sends as photos: good ones, their halves, and anything.

Half of the forms also get words that the model knows: by chance alone none would reach it.
"""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import numpy as np
import schemathesis
from PIL import Image


def _photo(kind: str, size: tuple[int, int]) -> bytes:
    """Bytes of a photo of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


PHOTOS = [_photo("PNG", (33, 21)), _photo("JPEG", (16, 40)), _photo("WEBP", (1, 1))]
HALVES = [photo[: len(photo) // 2] for photo in PHOTOS]

INTERFACE = (
    '<View><Image name="i" value="$p"/><BrushLabels name="l" toName="i">'
    '<Label value="dog"/><Label value="sky"/></BrushLabels></View>'
)
INLINE = f"data:image/png;base64,{base64.b64encode(PHOTOS[0]).decode()}"
KNOWN: dict[str, Any] = {
    "words": ["dog", "sky/sea"],
    "model": "",
    "background": "none",
    "templates": "",
    "schema": INTERFACE,
    "label_config": INTERFACE,
    "tasks": [{"data": {"p": INLINE}}, {"data": {}}],
    "names": '["dog", "sky"]',
    "colors": "[[1, 2, 3], [4, 5, 6]]",
    "width": 3,
    "height": 5,
    "runs": np.array([[0, 7], [1, 8]], "<u4").tobytes(),
}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Give half of the bodies fields that fit, and most forms a photo or half of one."""
    if not isinstance(body, dict):
        return body
    number = zlib.crc32(repr(sorted(body.items(), key=str)).encode("utf-8", "replace"))
    if "photo" in body and number % 4:
        body = body | {"photo": (PHOTOS + PHOTOS + HALVES)[number % 9]}
    if number % 2:
        body = body | {name: value for name, value in KNOWN.items() if name in body}
    return body

"""How the frames of a video are to be turned and mirrored before they are shown."""

from __future__ import annotations

import math
import struct
from typing import Any

from PIL import Image

_NUMBERS = struct.Struct("<9i")
_LEAST_COSINE = math.cos(math.radians(10))  # of a turn that counts as a quarter turn

# By the signs of a, b, c and d: the pixel at (x, y) is shown at (ax + cy, bx + dy), y down.
_MOVES = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


def display_move(frame: Any) -> Image.Transpose | None:
    """Return how a frame is turned and mirrored by the display matrix that the video has for it.

    Args:
        frame: A frame of PyAV.

    Returns:
        What Pillow does to show it upright; None: nothing, or no turn by whole quarters.
    """
    matrix = next(
        (bytes(each) for each in frame.side_data if each.type.name == "DISPLAYMATRIX"), b""
    )
    if len(matrix) != _NUMBERS.size:
        return None
    a, b, _, c, d, *_ = _NUMBERS.unpack(matrix)
    x, y = _signs(a, b), _signs(c, d)
    return _MOVES.get((x[0], x[1], y[0], y[1]))


def _signs(x: int, y: int) -> list[int]:
    """The direction of an axis in whole quarters; zeros if it is in between."""
    length = math.hypot(x, y) or 1.0
    return [round(part / length) if abs(part) >= _LEAST_COSINE * length else 0 for part in (x, y)]

"""Rotate and mirror video frames as their display matrix says."""

from __future__ import annotations

import math
import struct
from typing import Any

from PIL import Image

_NUMBERS = struct.Struct("<9i")
# A rotation within 10 degrees of a quarter turn counts as one.
_MIN_COSINE = math.cos(math.radians(10))

# Keys are the signs of a, b, c and d: pixel (x, y) is shown at (ax + cy, bx + dy), y down.
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
    """Get the transposition that shows a frame upright, from its display matrix.

    Args:
        frame: A frame of PyAV.

    Returns:
        Pillow's transposition; None if the frame has no matrix, or one that changes nothing or is
        no rotation by quarter turns.
    """
    matrix = b""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = bytes(data)
            break

    if len(matrix) != _NUMBERS.size:
        return None

    # Of the 3x3 matrix only the rotation and mirroring are used.
    a, b, _, c, d, *_ = _NUMBERS.unpack(matrix)
    x, y = _signs(a, b), _signs(c, d)
    return _MOVES.get((x[0], x[1], y[0], y[1]))


def _signs(x: int, y: int) -> list[int]:
    """Direction of an axis in quarter turns; zeros if it is in between."""
    length = math.hypot(x, y) or 1.0
    signs = []
    for part in (x, y):
        sign = 0
        if abs(part) >= _MIN_COSINE * length:
            sign = round(part / length)
        signs.append(sign)
    return signs

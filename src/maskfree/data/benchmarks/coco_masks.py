"""COCO masks, polygons and run lengths, validated before they are drawn.

pycocotools does not validate its input: a coordinate that is not a number makes it write to
arbitrary memory, and run lengths that end too early make it read uninitialized memory. Every number
is therefore checked here first.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

_MIN_NUMBERS = 6  # a polygon has at least three corners, x and y each
_MAX_COORDINATE = 10**6  # pycocotools stores fifths of a pixel in 32 bits
# Length of all outlines of a mask; pycocotools needs 80 bytes per pixel of it.
_MAX_OUTLINE_PX = 2**22
# Compressed run lengths use the 64 characters from "0" on, with 5 bits in each.
_FIRST_CHARACTER = 48
_MAX_CHARACTERS = 7  # of one run length; more than any photo needs


@dataclass(frozen=True)
class ObjectMask:
    """Mask of one object, as polygons or as column-major run lengths.

    Attributes:
        polygons: Corners x, y, x, y, ... of each polygon in pixels; the object is their union.
        runs: Run lengths in pixels, alternately outside and inside of the object, starting outside.
    """

    polygons: tuple[list[float], ...] = ()
    runs: tuple[int, ...] = ()

    @property
    def area(self) -> float:
        """Area of the object in pixels.

        Returns:
            The area; where polygons overlap, the overlap counts for each.
        """
        return sum(self.runs[1::2]) + sum(map(_area, self.polygons))

    def paint(self, truth: UInt8[np.ndarray, "h w"], value: int) -> None:
        """Set the object's pixels in a map.

        Args:
            truth: Map to change in place.
            value: Value for the object's pixels.
        """
        height, width = truth.shape

        if self.runs:
            # Run lengths go column by column, hence the transpose.
            inside = np.arange(len(self.runs)) % 2 == 1
            truth[np.repeat(inside, self.runs).reshape(width, height).T] = value

        if self.polygons:
            from pycocotools import mask

            coco: Any = mask  # its type stubs are narrower than what it accepts
            encoded = coco.merge(coco.frPyObjects(list(self.polygons), height, width))
            # pycocotools 2.0 still uses the array protocol of NumPy 1.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                truth[coco.decode(encoded).astype(bool)] = value


def read_mask(segmentation: Any, width: int, height: int) -> ObjectMask:
    """Read and validate the `segmentation` of an annotation.

    Args:
        segmentation: A list of polygons, an object with run lengths, or None for an empty mask.
        width: Width of the photo in pixels.
        height: Height of the photo in pixels.

    Returns:
        The mask.

    Raises:
        ValueError: It is neither, or does not fit the photo; the message says why, but not where.
    """
    if segmentation is None:
        return ObjectMask()
    if isinstance(segmentation, list):
        return ObjectMask(polygons=_read_polygons(segmentation, width, height))
    if isinstance(segmentation, dict):
        return ObjectMask(runs=_read_runs(segmentation, width, height))

    raise ValueError(
        f"its segmentation is {_kind(segmentation)}, neither a list of polygons nor run lengths"
    )


def _read_polygons(segmentation: list[Any], width: int, height: int) -> tuple[list[float], ...]:
    """Validate a list of polygons; empty ones are left out."""
    if segmentation and not any(isinstance(part, (list, dict)) for part in segmentation):
        raise ValueError(
            "its segmentation is one list of numbers: a polygon is a list within the list"
        )

    for part in segmentation:
        _check_polygon(part, width, height)

    polygons = tuple(part for part in segmentation if part)

    # Long outlines would make pycocotools allocate too much memory.
    length = sum(map(_length, polygons))
    if length > _MAX_OUTLINE_PX:
        raise ValueError(
            f"its outlines are {length:.0f} pixels long: {_MAX_OUTLINE_PX} are the most"
        )
    return polygons


def _check_polygon(part: Any, width: int, height: int) -> None:
    """Raise ValueError for an invalid polygon; an empty one is valid."""
    if not isinstance(part, list):
        raise ValueError(f"its segmentation holds {_kind(part)} where a polygon should be")

    for number in part:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise ValueError(f"a polygon holds {_kind(number)} where a number should be")

    if part and (len(part) % 2 or len(part) < _MIN_NUMBERS):
        raise ValueError(
            f"a polygon has {len(part)} numbers: x and y of three corners or more are needed"
        )

    # Corners may lie outside of the photo, but not far; NaN fails every comparison.
    for axis, numbers, side in (("x", part[::2], width), ("y", part[1::2], height)):
        highest = min(2 * side, _MAX_COORDINATE)
        wrong = next((number for number in numbers if not -side <= number <= highest), None)
        if wrong is not None:
            raise ValueError(
                f"a polygon has {axis} = {_short(wrong)}, "
                f"far outside of the photo of {width}x{height}"
            )


def _read_runs(segmentation: dict[str, Any], width: int, height: int) -> tuple[int, ...]:
    """Validate run lengths, compressed or not."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    # COCO gives the height first.
    if size != [height, width]:
        raise ValueError(
            f"its run lengths are of the size {_short(size)}: the photo has [{height}, {width}]"
        )
    if isinstance(counts, str):
        counts = list(_decompressed(counts))
    if not isinstance(counts, list):
        raise ValueError(f"its run lengths are {_kind(counts)}, neither a list nor a string")

    for count in counts:
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"a run length is {_short(count)}: it is the number of pixels")

    # The runs must cover the photo exactly.
    if sum(counts) != width * height:
        raise ValueError(
            f"its run lengths are {_short(sum(counts))} pixels together: "
            f"the photo has {width * height}"
        )
    return tuple(counts)


def _decompressed(text: str) -> Iterator[int]:
    """Decode COCO's compressed run lengths."""
    previous, place = [0, 0], 0
    number = 0
    while place < len(text):
        # Each character has 5 bits, lowest first, and a bit that says whether more follow.
        value, shift, more = 0, 0, True
        while more:
            code = -1
            if place < len(text):
                code = ord(text[place]) - _FIRST_CHARACTER
            if not 0 <= code < 64 or shift >= 5 * _MAX_CHARACTERS:
                raise ValueError("its compressed run lengths are damaged")
            value |= (code & 31) << shift
            shift, place, more = shift + 5, place + 1, bool(code & 32)
            # The highest bit of the last character is the sign.
            if not more and code & 16:
                value -= 1 << shift

        # From the fourth on, the difference to the length two before is stored.
        if number > 2:
            value += previous[0]
        previous, number = [previous[1], value], number + 1
        yield value


def _area(polygon: list[float]) -> float:
    """Area of a polygon by the shoelace formula."""
    x, y = _corners(polygon)
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _length(polygon: list[float]) -> float:
    """Length of an outline in pixel steps, the larger of both axes on each side."""
    x, y = _corners(polygon)
    return float(np.maximum(abs(x - np.roll(x, -1)), abs(y - np.roll(y, -1))).sum())


def _corners(polygon: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x and y of a polygon's corners."""
    corners = np.asarray(polygon, dtype=np.float64)
    return corners[::2], corners[1::2]


def _kind(value: Any) -> str:
    """Type of a JSON value, for messages."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    """Start of a value, for messages; Python may refuse to print a huge integer."""
    try:
        return repr(value)[:50]
    except ValueError:
        return _kind(value)

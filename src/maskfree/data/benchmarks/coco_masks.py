"""COCO's two ways to write an object's mask, polygons and run lengths, checked before they are painted.

pycocotools believes what it is given: a coordinate that is no number makes it write anywhere, run lengths that end too
early make it read what was never written. So every number is looked at here first.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

_MIN_NUMBERS = 6  # of a polygon: three corners
_MAX_COORDINATE = 10**6  # pycocotools counts fifths of a pixel with 32 bits
_MAX_OUTLINE_PX = (
    2**22
)  # length of all outlines of a mask: pycocotools holds 80 bytes for each pixel of it
_FIRST_CHARACTER = (
    48  # a compressed run length is written in the 64 characters from "0" on, 5 bits in each
)
_MAX_CHARACTERS = 7  # of one run length: more than any photo needs


@dataclass(frozen=True)
class ObjectMask:
    """The pixels of one object: polygons, or run lengths column by column that start with pixels outside.

    Attributes:
        polygons: Corners x, y, x, y, ... in pixels of each polygon; the object is their union.
        runs: Numbers of pixels, in turn outside and inside of the object.
    """

    polygons: tuple[list[float], ...] = ()
    runs: tuple[int, ...] = ()

    @property
    def area(self) -> float:
        """The area in pixels; of polygons that overlap, the overlap counts for each."""
        return sum(self.runs[1::2]) + sum(map(_area, self.polygons))

    def paint(self, truth: UInt8[np.ndarray, "h w"], value: int) -> None:
        """Set the object's pixels of `truth` to `value`."""
        height, width = truth.shape

        if self.runs:
            inside = np.arange(len(self.runs)) % 2 == 1
            truth[np.repeat(inside, self.runs).reshape(width, height).T] = value

        if self.polygons:
            from pycocotools import mask

            coco: Any = mask  # its types are narrower than what it takes
            encoded = coco.merge(coco.frPyObjects(list(self.polygons), height, width))
            with warnings.catch_warnings():  # pycocotools 2.0 still speaks numpy 1's array protocol
                warnings.simplefilter("ignore", DeprecationWarning)
                truth[coco.decode(encoded).astype(bool)] = value


def read_mask(segmentation: Any, width: int, height: int) -> ObjectMask:
    """Read what an annotation has as its `segmentation`, for a photo of `width` x `height` pixels.

    Args:
        segmentation: A list of polygons, an object with run lengths, or None, which is no pixel.
        width: The photo's width in pixels.
        height: The photo's height in pixels.

    Returns:
        The mask.

    Raises:
        ValueError: It is neither, or does not fit the photo; the message says why, and not where.
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
    if segmentation and not any(isinstance(part, (list, dict)) for part in segmentation):
        raise ValueError(
            "its segmentation is one list of numbers: a polygon is a list within the list"
        )
    for part in segmentation:
        _check_polygon(part, width, height)
    polygons = tuple(part for part in segmentation if part)

    length = sum(map(_length, polygons))
    if length > _MAX_OUTLINE_PX:
        raise ValueError(
            f"its outlines are {length:.0f} pixels long: {_MAX_OUTLINE_PX} are the most"
        )
    return polygons


def _check_polygon(part: Any, width: int, height: int) -> None:
    """Raises ValueError where PART is no polygon; an empty one is one."""
    if not isinstance(part, list):
        raise ValueError(f"its segmentation holds {_kind(part)} where a polygon should be")
    for number in part:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise ValueError(f"a polygon holds {_kind(number)} where a number should be")
    if part and (len(part) % 2 or len(part) < _MIN_NUMBERS):
        raise ValueError(
            f"a polygon has {len(part)} numbers: x and y of three corners or more are needed"
        )

    # NaN is in no range.
    for axis, numbers, side in (("x", part[::2], width), ("y", part[1::2], height)):
        most = min(2 * side, _MAX_COORDINATE)
        wrong = next((number for number in numbers if not -side <= number <= most), None)
        if wrong is not None:
            raise ValueError(
                f"a polygon has {axis} = {_short(wrong)}, far outside of the photo of {width}x{height}"
            )


def _read_runs(segmentation: dict[str, Any], width: int, height: int) -> tuple[int, ...]:
    size, counts = segmentation.get("size"), segmentation.get("counts")
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
    if sum(counts) != width * height:
        raise ValueError(
            f"its run lengths are {_short(sum(counts))} pixels together: the photo has {width * height}"
        )
    return tuple(counts)


def _decompressed(text: str) -> Iterator[int]:
    """Run lengths as pycocotools compresses them: from the fourth on, each is less by the one two before it."""
    previous, place = [0, 0], 0
    number = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[place]) - _FIRST_CHARACTER if place < len(text) else -1
            if not 0 <= code < 64 or shift >= 5 * _MAX_CHARACTERS:
                raise ValueError("its compressed run lengths are damaged")
            value |= (code & 31) << shift
            shift, place, more = shift + 5, place + 1, bool(code & 32)
            if not more and code & 16:
                value -= 1 << shift
        if number > 2:
            value += previous[0]
        previous, number = [previous[1], value], number + 1
        yield value


def _area(polygon: list[float]) -> float:
    x, y = _corners(polygon)
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _length(polygon: list[float]) -> float:
    """Steps that an outline takes, the longer of both directions on each side."""
    x, y = _corners(polygon)
    return float(np.maximum(abs(x - np.roll(x, -1)), abs(y - np.roll(y, -1))).sum())


def _corners(polygon: list[float]) -> tuple[np.ndarray, np.ndarray]:
    corners = np.asarray(polygon, dtype=np.float64)
    return corners[::2], corners[1::2]


def _kind(value: Any) -> str:
    """What a value of JSON is, for messages."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    """The beginning of VALUE's spelling; that of a whole number may be refused by Python."""
    try:
        return repr(value)[:50]
    except ValueError:
        return _kind(value)

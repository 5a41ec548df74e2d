"""What the values of published truth maps stand for: value -> class id, `NOTHING` or `IGNORE`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

IGNORE = 255  # truth id of pixels that do not count; a value of 255 always means it
NOTHING = -1  # of pixels that show no class of the list: a class of its own where the benchmark knows the background
CLASSES = Path(__file__).parents[1] / "classes"
_NEVER = (
    11,
    25,
    28,
    29,
    44,
    65,
    67,
    68,
    70,
    82,
    90,
)  # COCO ids minus 1 that were removed before COCO was published
_CITYSCAPES = (
    7,
    8,
    11,
    12,
    13,
    17,
    19,
    20,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    31,
    32,
    33,
)  # labelIds in trainId order
_NUM_CITYSCAPES = 34
_NUM_CONTEXT = 459


def counted(num_classes: int, zero: int) -> dict[int, int]:
    """Values count the classes from 1; 0 means ZERO, which is `NOTHING` or `IGNORE`.

    >>> counted(3, NOTHING)
    {0: -1, 1: 0, 2: 1, 3: 2}
    """
    return {0: zero, **{i + 1: i for i in range(num_classes)}}


def identity(num_classes: int) -> dict[int, int]:
    """Values are class ids."""
    return {i: i for i in range(num_classes)}


def with_void(num_classes: int) -> dict[int, int]:
    """Values are class ids, and the one after the last means a pixel that does not count."""
    return identity(num_classes) | {num_classes: IGNORE}


def coco_stuff() -> dict[int, int]:
    """COCO-Stuff's maps: a value is the category's id (1 to 182) minus 1; 11 of these never occur."""
    return {value: i for i, value in enumerate(v for v in range(182) if v not in _NEVER)}


def coarse(fine: Mapping[int, int]) -> dict[int, int]:
    """Values of the 27 coarse classes of COCO-Stuff, from those of its 171 fine ones."""
    names = {name: i for i, name in enumerate(read_lines("coco_stuff27"))}
    renamed = read_renaming("coco_stuff171_to_27")
    ids = [names[renamed[name]] for name in read_lines("coco_stuff171")]
    return {value: ids[i] for value, i in fine.items()}


def context() -> dict[int, int]:
    """PASCAL Context's 459 values: 59 of them are classes, the others and 0 (unlabeled) are nothing."""
    ids = {int(value): i for i, value in enumerate(read_renaming("context459_to_context59"))}
    return {value: ids.get(value, NOTHING) for value in range(_NUM_CONTEXT + 1)}


def cityscapes() -> dict[int, int]:
    """Cityscapes' labelIds: 19 of the 34 count."""
    ids = {value: i for i, value in enumerate(_CITYSCAPES)}
    return {value: ids.get(value, IGNORE) for value in range(_NUM_CITYSCAPES)}


@cache
def read_lines(name: str) -> tuple[str, ...]:
    """Lines of a file in classes/."""
    return tuple((CLASSES / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def read_renaming(name: str) -> dict[str, str]:
    """A file in classes/ of "old name: new name" lines."""
    return dict(line.split(": ", 1) for line in read_lines(name))  # pyright: ignore[reportReturnType]

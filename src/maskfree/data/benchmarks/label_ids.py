"""Values of published ground-truth maps: tables from value to class id, `NOTHING` or `IGNORE`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from maskfree.ops.ignore import IGNORE

# Pixels of no listed class; a class of its own if the benchmark has a background class.
NOTHING = -1
CLASSES = Path(__file__).parents[1] / "classes"
# COCO ids minus 1 that were removed before COCO was published.
_NEVER = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
# Cityscapes labelIds in the order of the trainIds.
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_NUM_CITYSCAPES = 34
_NUM_CONTEXT = 459


def counted(num_classes: int, zero: int) -> dict[int, int]:
    """Table of values that number the classes from 1.

    Args:
        num_classes: Number of classes.
        zero: Meaning of value 0: `NOTHING` or `IGNORE`.

    Returns:
        Class id of each value.

    Example:
        >>> counted(3, NOTHING)
        {0: -1, 1: 0, 2: 1, 3: 2}
    """
    return {0: zero, **{i + 1: i for i in range(num_classes)}}


def identity(num_classes: int) -> dict[int, int]:
    """Table of values that are class ids.

    Args:
        num_classes: Number of classes.

    Returns:
        Class id of each value.
    """
    return {i: i for i in range(num_classes)}


def with_void(num_classes: int) -> dict[int, int]:
    """Table of values that are class ids, of which the one after the last is ignored.

    Args:
        num_classes: Number of classes.

    Returns:
        Class id of each value.
    """
    return identity(num_classes) | {num_classes: IGNORE}


def coco_stuff() -> dict[int, int]:
    """Table of COCO-Stuff: values are category ids (1 to 182) minus 1, of which 11 never occur.

    Returns:
        Class id of each value, 0 to 170.
    """
    return {value: i for i, value in enumerate(v for v in range(182) if v not in _NEVER)}


def coarse(fine: Mapping[int, int]) -> dict[int, int]:
    """Table of the 27 coarse classes of COCO-Stuff.

    Args:
        fine: Table of the 171 fine classes.

    Returns:
        Coarse class id of each value.
    """
    names = {name: i for i, name in enumerate(read_lines("coco_stuff27"))}
    renamed = read_renaming("coco_stuff171_to_27")
    ids = [names[renamed[name]] for name in read_lines("coco_stuff171")]
    return {value: ids[i] for value, i in fine.items()}


def context() -> dict[int, int]:
    """Table of PASCAL Context: 59 of its 459 values are classes; the others and 0 are no class.

    Returns:
        Class id or `NOTHING` of each value.
    """
    ids = {int(value): i for i, value in enumerate(read_renaming("context459_to_context59"))}
    return {value: ids.get(value, NOTHING) for value in range(_NUM_CONTEXT + 1)}


def cityscapes() -> dict[int, int]:
    """Table of Cityscapes: 19 of its 34 labelIds are evaluated.

    Returns:
        Class id or `IGNORE` of each value.
    """
    ids = {value: i for i, value in enumerate(_CITYSCAPES)}
    return {value: ids.get(value, IGNORE) for value in range(_NUM_CITYSCAPES)}


@cache
def read_lines(name: str) -> tuple[str, ...]:
    """Read a file in classes/.

    Args:
        name: File name without suffix.

    Returns:
        The lines of the file.
    """
    return tuple((CLASSES / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def read_renaming(name: str) -> dict[str, str]:
    """Read a file of "old name: new name" lines in classes/.

    Args:
        name: File name without suffix.

    Returns:
        New name of each old name, in the order of the file.
    """
    return dict(line.split(": ", 1) for line in read_lines(name))  # pyright: ignore[reportReturnType]

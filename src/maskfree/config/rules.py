"""What the values of a settings dataclass may be: its types, and ranges written beside them as `Annotated`."""

from __future__ import annotations

import math
import numbers
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds; None is no bound."""

    least: float | None = None
    most: float | None = None
    above: bool = False
    """Whether LEAST itself is left out."""
    below: bool = False
    """Whether MOST itself is left out."""

    def holds(self, value: float) -> bool:
        """Say whether VALUE lies in the range; NaN lies in none."""
        low = self.least is None or (value > self.least if self.above else value >= self.least)
        high = self.most is None or (value < self.most if self.below else value <= self.most)
        return low and high

    def __str__(self) -> str:
        """The range as an error says it."""
        if self.least is None or self.most is None:
            return f"{'above' if self.above else 'at least'} {self.least:g}"
        return f"in {'(' if self.above else '['}{self.least:g}, {self.most:g}{')' if self.below else ']'}"


class Outside:
    """Marks a string that names what lies outside a checkpoint: a file, a folder, a Hugging Face name."""


class Ascending:
    """Marks values of which none is smaller than the one before."""


# Bounds that no honest setting meets, and that keep a mistyped one from taking all memory.
_MOST_SIDE, _MOST_WIDTH = 16384, 65536

Count = Annotated[int, Range(1)]
"""How many there are; at least one."""
CountOrZero = Annotated[int, Range(0)]
"""How many there are; 0 is none, or no limit."""
Side = Annotated[int, Range(1, _MOST_SIDE)]
"""Pixels along a side."""
SideOrZero = Annotated[int, Range(0, _MOST_SIDE)]
"""Pixels along a side; 0 is no limit."""
Width = Annotated[int, Range(1, _MOST_WIDTH)]
"""Channels, embeddings' lengths, classes and the like: the sizes of tensors."""
WidthOrZero = Annotated[int, Range(0, _MOST_WIDTH)]
"""The size of a tensor; 0 is none."""
Positive = Annotated[float, Range(0, above=True)]
"""Temperatures, scales, standard deviations."""
Weight = Annotated[float, Range(0)]
"""What something counts; 0 is nothing."""
Fraction = Annotated[float, Range(0, 1)]
"""Probabilities, and parts of a whole."""
PositiveFraction = Annotated[float, Range(0, 1, above=True)]
"""Parts of a whole, more than nothing."""
FractionRange = Annotated[tuple[PositiveFraction, PositiveFraction], Ascending]
"""The least and the largest part of a whole."""
PositiveRange = Annotated[tuple[Positive, Positive], Ascending]
"""The least and the largest of a positive number."""
Momentum = Annotated[float, Range(0, 1, below=True)]
"""How much of an average stays at each step."""
OutsideName = Annotated[str, Outside]
"""A file, a folder or a Hugging Face name."""


def check(settings: Any, name: str = "") -> None:
    """See that every value in SETTINGS, a dataclass with others inside, has the type and the range of its field.

    Floats are finite, whole numbers are no bools, and a `Literal` is one of its values. Types that are not plain
    values, such as functions, are passed over.

    Args:
        settings: The dataclass.
        name: What comes before the names of the fields in the message, as in "train".

    Raises:
        ValueError: a value is none of its field; the message names the field and what it may be.
    """
    for field, kind in _kinds(type(settings)):
        _check(getattr(settings, field), kind, f"{name}.{field}" if name else field)


@cache
def _kinds(settings: type) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(settings, include_extras=True)
    return tuple((field.name, hints[field.name]) for field in fields(settings))


def outside_names(settings: Any, name: str = "") -> list[str]:
    """List the fields within SETTINGS that name something outside, as `OutsideName` marks them, and are set."""
    found = []
    for field, kind in _kinds(type(settings)):
        value, path = getattr(settings, field), f"{name}.{field}" if name else field
        if is_dataclass(value):
            found += outside_names(value, path)
        elif value is not None and _is_outside(kind):
            found.append(path)
    return found


def _is_outside(kind: Any) -> bool:
    marks = getattr(kind, "__metadata__", ())
    return Outside in marks or any(
        _is_outside(choice) for choice in get_args(kind) if get_origin(kind) is not Literal
    )


def _check(value: Any, kind: Any, name: str) -> None:
    """Raise ValueError where VALUE is no KIND."""
    if rule := _broken(value, kind):
        raise ValueError(f"{name} is {_shown(value)}, must be {rule}")
    if is_dataclass(value) and not isinstance(value, type):
        check(value, name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check(item, _item_kind(kind), f"{name}.{key}")


def _item_kind(kind: Any) -> Any:
    """The kind of a mapping's values."""
    return next(
        (get_args(choice)[1] for choice in (kind, *get_args(kind)) if _is_mapping(choice)), Any
    )


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(kind)) == 2


def _broken(value: Any, kind: Any) -> str:
    """The rule of KIND that VALUE breaks, as "must be ..." goes on; empty if it keeps them all."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner = _broken(value, arguments[0])
        return inner or next(
            (rule for mark in kind.__metadata__ if (rule := _broken_mark(value, mark))), ""
        )
    if origin in (Union, types.UnionType):
        return _broken_all(value, arguments)
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in arguments)
        return "" if fits else f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return _broken_items(value, arguments)
    if origin is list:
        return _broken_items(value, (*arguments, ...))
    return _PLAIN[kind](value) if kind in _PLAIN else ""


def _broken_mark(value: Any, mark: Any) -> str:
    """The rule of a MARK beside a type that VALUE, of this type, breaks."""
    if isinstance(mark, Range):
        return "" if mark.holds(value) else str(mark)
    return "ascending" if mark is Ascending and list(value) != sorted(value) else ""


def _broken_all(value: Any, choices: tuple[Any, ...]) -> str:
    """The rule that a value breaks which fits none of CHOICES; None is the last that is spoken of."""
    if value is None:
        return "" if type(None) in choices else "given"
    rules = [_broken(value, choice) for choice in choices if choice is not type(None)]
    return "" if "" in rules else " or ".join(dict.fromkeys(rules))


def _broken_items(value: Any, kinds: tuple[Any, ...]) -> str:
    if not isinstance(value, tuple | list):
        return "a list of values"
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        return f"{len(kinds)} values"
    rules = (_broken(item, kind) for item, kind in zip(value, kinds, strict=True))
    return next((f"of values {rule}" for rule in rules if rule), "")


def _no_whole_number(value: Any) -> str:
    return (
        ""
        if isinstance(value, numbers.Integral) and not isinstance(value, bool)
        else "a whole number"
    )


def _no_number(value: Any) -> str:
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    return "" if fits else "a finite number"


_PLAIN = {
    bool: lambda value: "" if isinstance(value, bool) else "True or False",
    int: _no_whole_number,
    float: _no_number,
    str: lambda value: "" if isinstance(value, str) else "text",
    Path: lambda value: "" if isinstance(value, Path) else "a path",
    type(None): lambda value: "" if value is None else "None",
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


Storage = Literal["float32", "float16", "int8"]

"""Validation of config dataclasses: types of fields, and ranges annotated with `Annotated`."""

from __future__ import annotations

import math
import numbers
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """Interval of allowed numbers; a bound of None is no limit."""

    low: float | None = None
    """Lower bound."""
    high: float | None = None
    """Upper bound."""
    above: bool = False
    """Whether the lower bound `low` is excluded."""
    below: bool = False
    """Whether the upper bound `high` is excluded."""

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range.

        Args:
            value: Number to test; NaN lies in no range.

        Returns:
            True if it lies within both bounds.
        """
        if self.low is not None:
            at_low = value == self.low and not self.above
            if not (value > self.low or at_low):
                return False

        if self.high is not None:
            at_high = value == self.high and not self.below
            if not (value < self.high or at_high):
                return False
        return True

    def __str__(self) -> str:
        """The range as error messages state it, after "must be"."""
        if self.low is None or self.high is None:
            kind = "at least"
            if self.above:
                kind = "above"
            return f"{kind} {self.low:g}"

        opening, closing = "[", "]"
        if self.above:
            opening = "("
        if self.below:
            closing = ")"
        return f"in {opening}{self.low:g}, {self.high:g}{closing}"


class Outside:
    """Annotation of strings that name a resource outside a checkpoint, such as a file."""


class Ascending:
    """Annotation of sequences whose values must not decrease."""


# Far above any useful setting; they keep a mistyped value from taking all memory.
_MAX_SIDE, _MAX_WIDTH = 16384, 65536

Count = Annotated[int, Range(1)]
"""A count of at least 1."""
CountOrZero = Annotated[int, Range(0)]
"""A count; 0 means none, or no limit."""
Side = Annotated[int, Range(1, _MAX_SIDE)]
"""Side length in pixels."""
SideOrZero = Annotated[int, Range(0, _MAX_SIDE)]
"""Side length in pixels; 0 means no limit."""
Width = Annotated[int, Range(1, _MAX_WIDTH)]
"""Size of a tensor axis: channels, embedding size, number of classes and the like."""
WidthOrZero = Annotated[int, Range(0, _MAX_WIDTH)]
"""Size of a tensor axis; 0 means none."""
Positive = Annotated[float, Range(0, above=True)]
"""A number above 0: temperature, scale, standard deviation."""
Weight = Annotated[float, Range(0)]
"""A weight of at least 0; 0 turns its term off."""
Fraction = Annotated[float, Range(0, 1)]
"""A probability or fraction in [0, 1]."""
PositiveFraction = Annotated[float, Range(0, 1, above=True)]
"""A fraction in (0, 1]."""
FractionRange = Annotated[tuple[PositiveFraction, PositiveFraction], Ascending]
"""Minimum and maximum of a fraction in (0, 1]."""
PositiveRange = Annotated[tuple[Positive, Positive], Ascending]
"""Minimum and maximum of a positive number."""
Momentum = Annotated[float, Range(0, 1, below=True)]
"""Decay of an exponential moving average, in [0, 1)."""
OutsideName = Annotated[str, Outside]
"""A file, a folder or a Hugging Face Hub name."""


def check(settings: Any, name: str = "") -> None:
    """Check every value of a config dataclass against the type and range of its field.

    Nested dataclasses are checked too. Floats must be finite, integers must not be bools, and the
    value of a `Literal` must be one of its choices. Types that are not plain values, such as
    functions, are skipped.

    Args:
        settings: Instance of the dataclass.
        name: Prefix of the field names in error messages, such as "train".

    Raises:
        ValueError: A value does not fit its field; the message names the field and the rule.
    """
    for field, kind in _kinds(type(settings)):
        _check(getattr(settings, field), kind, _dotted(name, field))


def _dotted(name: str, field: str) -> str:
    """Name of a field with its prefix, if there is one."""
    if not name:
        return field
    return f"{name}.{field}"


@cache
def _kinds(settings: type) -> tuple[tuple[str, Any], ...]:
    """Name and type of each field of a dataclass, with annotations resolved."""
    hints = get_type_hints(settings, include_extras=True)
    return tuple((field.name, hints[field.name]) for field in fields(settings))


def outside_names(settings: Any, name: str = "") -> list[str]:
    """List the fields of type `OutsideName` that have a value other than None.

    Args:
        settings: Instance of a dataclass, which may contain others.
        name: Prefix of the field names.

    Returns:
        Dotted names of the fields.
    """
    found = []
    for field, kind in _kinds(type(settings)):
        value, path = getattr(settings, field), _dotted(name, field)
        if is_dataclass(value):
            found += outside_names(value, path)
        elif value is not None and _is_outside(kind):
            found.append(path)

    return found


def _is_outside(kind: Any) -> bool:
    """Whether a type, or a type within it, is annotated with `Outside`."""
    # The choices of a Literal are values, not types.
    if get_origin(kind) is Literal:
        return False
    if Outside in getattr(kind, "__metadata__", ()):
        return True
    return any(map(_is_outside, get_args(kind)))


def _check(value: Any, kind: Any, name: str) -> None:
    """Raise ValueError where a value, or one within it, does not fit its type."""
    if rule := _broken(value, kind):
        raise ValueError(f"{name} is {_shown(value)}, must be {rule}")

    # Dataclasses and mappings are not checked by `_broken`: their items are named in the message.
    if is_dataclass(value) and not isinstance(value, type):
        check(value, name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _check(item, _item_kind(kind), f"{name}.{key}")


def _item_kind(kind: Any) -> Any:
    """Type of the values of a mapping type, which may be part of a union."""
    for choice in (kind, *get_args(kind)):
        if _is_mapping(choice):
            return get_args(choice)[1]
    return Any


def _is_mapping(kind: Any) -> bool:
    """Whether a type is a mapping with key and value types."""
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(kind)) == 2


def _broken(value: Any, kind: Any) -> str:
    """The rule of a type that a value violates, to follow "must be"; empty if it fits."""
    origin, arguments = get_origin(kind), get_args(kind)

    # The type comes before its annotations, whose rules assume it.
    if origin is Annotated:
        if rule := _broken(value, arguments[0]):
            return rule
        return next(filter(None, (_broken_mark(value, mark) for mark in kind.__metadata__)), "")

    if origin in (Union, types.UnionType):
        return _broken_all(value, arguments)

    # True == 1 and 1.0 == 1, so the types are compared as well.
    if origin is Literal:
        for choice in arguments:
            if value == choice and type(value) is type(choice):
                return ""
        return f"one of {', '.join(map(str, arguments))}"

    if origin is tuple:
        return _broken_items(value, arguments)
    if origin is list:
        return _broken_items(value, (*arguments, ...))

    fits, rule = _PLAIN.get(kind, (None, ""))
    if fits is None or fits(value):
        return ""
    return rule


def _broken_mark(value: Any, mark: Any) -> str:
    """The rule of one annotation that a value of the right type violates; empty if none."""
    if isinstance(mark, Range) and not mark.holds(value):
        return str(mark)
    if mark is Ascending and list(value) != sorted(value):
        return "ascending"
    return ""


def _broken_all(value: Any, choices: tuple[Any, ...]) -> str:
    """The rules of a union that a value violates; empty if it fits one of its types."""
    if value is None and type(None) in choices:
        return ""
    if value is None:
        return "given"

    # Where a value was given, the message says nothing of None.
    rules: dict[str, None] = {}
    for choice in choices:
        if choice is not type(None):
            rules[_broken(value, choice)] = None

    if "" in rules:
        return ""
    return " or ".join(rules)


def _broken_items(value: Any, kinds: tuple[Any, ...]) -> str:
    """The rule of a tuple or list type that a value or one of its items violates."""
    if not isinstance(value, tuple | list):
        return "a list of values"

    # (kind, ...) stands for any number of items of one type.
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        return f"{len(kinds)} values"

    for item, kind in zip(value, kinds, strict=True):
        if rule := _broken(item, kind):
            return f"of values {rule}"
    return ""


def _is_whole_number(value: Any) -> bool:
    """Whether a value fits an int field."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_finite_number(value: Any) -> bool:
    """Whether a value fits a float field."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


# For each plain type, the test that a value must pass, and the rule for the message.
_PLAIN: dict[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda value: isinstance(value, bool), "True or False"),
    int: (_is_whole_number, "a whole number"),
    float: (_is_finite_number, "a finite number"),
    str: (lambda value: isinstance(value, str), "text"),
    Path: (lambda value: isinstance(value, Path), "a path"),
    type(None): (lambda value: value is None, "None"),
}


def _shown(value: Any) -> str:
    """A value as error messages show it, cut to 60 characters."""
    text = repr(value)
    if len(text) > 60:
        text = f"{text[:57]}..."
    return text


Storage = Literal["float32", "float16", "int8"]
"""Number format in which tensors are stored."""
MapStorage = Literal["float16", "int8"]
"""Number format of a teacher's feature maps."""
Grouping = Literal["own", "clusters", "soft clusters", "kmeans", "pixels"]
"""What groups pixels at inference."""

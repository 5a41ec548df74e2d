"""Settings of the networks that this package builds without transformers."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

from maskfree.nn.encoder_config import Value

MAX_SIZE = 2**20
"""Largest number allowed in a configuration; known vocabularies have up to 256,000 words."""


def known_settings(
    defaults: Mapping[str, Value], fixed: Mapping[str, Value], changes: Mapping[str, Value]
) -> SimpleNamespace | None:
    """Complete the settings of a network, if this package builds the network by itself.

    Args:
        defaults: Settings that the network reads, each with its default.
        fixed: Settings of which only one value is built here.
        changes: Settings as a checkpoint or a recipe gives them.

    Returns:
        All settings as attributes; None if there are others, a value of another type, or one that
        only transformers builds or refuses.
    """
    for name, value in changes.items():
        if name in fixed:
            if value != fixed[name]:
                return None
            continue
        if name not in defaults or not _fits(value, defaults[name]):
            return None

    return SimpleNamespace(**{**defaults, **fixed, **changes})


def _fits(value: Value, default: Value) -> bool:
    """Whether a value has the type of the default and a size that can be built."""
    if isinstance(value, bool) or isinstance(default, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, int | float) and 0 <= value <= MAX_SIZE
    if isinstance(default, int):
        return isinstance(value, int) and 0 <= value <= MAX_SIZE
    return isinstance(value, str)

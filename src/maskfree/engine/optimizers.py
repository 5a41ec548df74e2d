"""AdamW parameter groups and learning rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from maskfree.hub.checkpoint import has_prefix


def check_prefixes(names: Iterable[str], prefixes: Iterable[str]) -> None:
    """Check that each prefix matches at least one parameter name.

    Args:
        names: Names of the trainable parameters.
        prefixes: Dotted name prefixes, such as `image.encoder`.

    Raises:
        ValueError: A prefix matches no parameter.
    """
    names = list(names)
    for prefix in prefixes:
        if not any(has_prefix(name, prefix) for name in names):
            heads = ", ".join(sorted({name.partition(".")[0] for name in names}))
            raise ValueError(
                f"no trainable parameter is named {prefix!r}; names begin with {heads}"
            )


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    lr_multipliers: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Group trainable parameters by weight decay and learning rate multiplier.

    Parameters with fewer than two axes (biases, norms, temperatures) do not decay.

    Args:
        parameters: Named parameters; those that take no gradient are skipped.
        weight_decay: Weight decay of parameters with two axes or more.
        lr_multipliers: Learning rate factors by name prefix; the longest matching prefix wins.

    Returns:
        Parameter groups for AdamW; each holds its learning rate factor as `rate`.

    Raises:
        ValueError: A prefix in `lr_multipliers` matches no trainable parameter.
    """
    trainable = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    check_prefixes((name for name, _ in trainable), lr_multipliers)

    # One group for each pair of factor and decay.
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in trainable:
        # The longest prefix wins.
        matching = [prefix for prefix in lr_multipliers if has_prefix(name, prefix)]
        rate = lr_multipliers.get(max(matching, key=len, default=""), 1.0)

        # Biases, norms and temperatures have fewer than two axes.
        decay = weight_decay
        if parameter.ndim < 2:
            decay = 0.0

        empty = {"params": [], "weight_decay": decay, "rate": rate}
        groups.setdefault((rate, decay), empty)["params"].append(parameter)

    return list(groups.values())


def warm_up(step: int, steps: int) -> float:
    """Linear warm-up factor of the learning rate.

    Args:
        step: Step, from 0.
        steps: Number of warm-up steps; 0 for none.

    Returns:
        Factor in (0, 1]; 1 from the last warm-up step on.
    """
    if not steps:
        return 1.0
    return min(1.0, (step + 1) / steps)


def cosine(step: int, steps: int, warm_up_steps: int = 0, final: float = 0.0) -> float:
    """Learning rate factor of a cosine schedule with linear warm-up.

    Args:
        step: Step, from 0.
        steps: Total number of steps.
        warm_up_steps: Steps of linear warm-up.
        final: Factor at the last step.

    Returns:
        Factor on the peak learning rate, at most 1.

    Example:
        >>> [round(cosine(step, 6, warm_up_steps=2), 2) for step in range(6)]
        [0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    done = _progress(step, steps, warm_up_steps)
    return warm_up(step, warm_up_steps) * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)


def polynomial(
    step: int, steps: int, warm_up_steps: int = 0, final: float = 0.0, power: float = 0.9
) -> float:
    """Learning rate factor of a polynomial schedule, (1 - progress) ** power, with linear warm-up.

    Args:
        step: Step, from 0.
        steps: Total number of steps.
        warm_up_steps: Steps of linear warm-up.
        final: Factor at the last step.
        power: Exponent of the decay; 1 is linear.

    Returns:
        Factor on the peak learning rate, at most 1.

    Example:
        >>> [round(polynomial(step, 5, power=1), 2) for step in range(5)]
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    left = (1 - _progress(step, steps, warm_up_steps)) ** power
    return warm_up(step, warm_up_steps) * (final + (1 - final) * left)


def _progress(step: int, steps: int, warm_up_steps: int) -> float:
    """Fraction of the schedule after the warm-up: 0 at its end, 1 at the last step."""
    # The last step of the warm-up is the first of the decay.
    first = max(warm_up_steps - 1, 0)
    return min(1.0, max(0.0, (step - first) / max(steps - 1 - first, 1)))

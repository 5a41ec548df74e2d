"""Parameter groups of AdamW, and learning-rate schedules as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from maskfree.hub.checkpoint import has_prefix


def check_prefixes(names: Iterable[str], prefixes: Iterable[str]) -> None:
    """Make sure that each of PREFIXES names a parameter.

    Raises:
        ValueError: one of them names none.
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
    """Sort named PARAMETERS that take gradients into groups of one decay and one share of the learning rate.

    Parameters of fewer than two axes (biases, norms, temperatures) do not decay. RATES maps prefixes of names to the
    factor on the learning rate, the longest prefix wins; each group holds its factor as `rate`.

    Raises:
        ValueError: a prefix in RATES names no trainable parameter.
    """
    trainable = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    check_prefixes((name for name, _ in trainable), lr_multipliers)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in trainable:
        prefix = max((p for p in lr_multipliers if has_prefix(name, p)), key=len, default=None)
        rate = 1.0 if prefix is None else lr_multipliers[prefix]
        decay = weight_decay if parameter.ndim >= 2 else 0.0
        group = groups.setdefault(
            (rate, decay), {"params": [], "weight_decay": decay, "rate": rate}
        )
        group["params"].append(parameter)
    return list(groups.values())


def warm_up(step: int, steps: int) -> float:
    """Factor of STEP (from 0): rises linearly over the first STEPS steps, whose last has 1, and stays."""
    return min(1.0, (step + 1) / steps) if steps else 1.0


def cosine(step: int, steps: int, warm_up_steps: int = 0, final: float = 0.0) -> float:
    """Factor on the learning rate at STEP of STEPS: warm-up, then half a cosine from 1 to FINAL at the last step.

    >>> [round(cosine(step, 6, warm_up_steps=2), 2) for step in range(6)]
    [0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    done = _progress(step, steps, warm_up_steps)
    return warm_up(step, warm_up_steps) * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)


def polynomial(
    step: int, steps: int, warm_up_steps: int = 0, final: float = 0.0, power: float = 0.9
) -> float:
    """Factor on the learning rate at STEP of STEPS: warm-up, then (1 - progress) ** POWER, from 1 to FINAL.

    >>> [round(polynomial(step, 5, power=1), 2) for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    left = (1 - _progress(step, steps, warm_up_steps)) ** power
    return warm_up(step, warm_up_steps) * (final + (1 - final) * left)


def _progress(step: int, steps: int, warm_up_steps: int) -> float:
    """0 up to the end of the warm-up, 1 at the last step."""
    first = max(warm_up_steps - 1, 0)
    return min(1.0, max(0.0, (step - first) / max(steps - 1 - first, 1)))

"""Convolutions of an exported network in 8 bits, by the ranges of their inputs on other photos.

Depthwise convolutions stay as they are: in 8 bits they cost mIoU and save little.

Source: Jacob et al. 2018, section 2.1 (arXiv:1712.05877).
Differs: ranges are those of a trained network, which does not learn to live with 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskfree.method import Method

InputRanges = Mapping[str, tuple[float, float]]
"""Least and largest input of convolutions, by the names of their modules."""

# An exported network's weights are named after the module that `export` wraps methods in.
_PREFIX, _SUFFIX = "method.", ".weight"
# Inputs are unsigned bytes with a zero point, weights signed ones without.
_INPUT_LEVELS, _WEIGHT_LEVELS = 256, 255


@torch.inference_mode()
def input_ranges(method: Method, batches: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """Measure between which values the inputs of convolutions lie.

    Args:
        method: Method that has an image side, in eval mode.
        batches: Batches of photos, (b 3 h w) in [0, 1], at least one.

    Returns:
        Least and largest input of each convolution that is not depthwise, averaged over batches.
    """
    seen: dict[str, list[tuple[float, float]]] = {}
    hooks = []
    for name, layer in method.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:

            def note(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                low, high = inputs[0].aminmax()
                seen.setdefault(name, []).append((low.item(), high.item()))

            hooks.append(layer.register_forward_pre_hook(note))

    for batch in batches:
        method.look(batch)
    for hook in hooks:
        hook.remove()

    means = {name: np.mean(values, axis=0).tolist() for name, values in seen.items()}
    return {name: (low, high) for name, (low, high) in means.items()}


def checked_ranges(values: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Check ranges that come from a file.

    Args:
        values: Two numbers by the name of a module.

    Returns:
        The ranges.

    Raises:
        ValueError: A value is not a pair of a smaller and a larger number.
    """
    ranges = {}
    for name, pair in values.items():
        try:
            low, high = map(float, pair)
        except (TypeError, ValueError):
            low = high = math.nan
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"the range {name!r} is {pair!r}: two numbers, the smaller one first")
        ranges[name] = (low, high)
    return ranges


def in_eight_bits(network: Any, ranges: InputRanges) -> None:
    """Let convolutions of a network of OpenVINO compute in 8 bits.

    Args:
        network: Model of OpenVINO that was read from an exported network; changed in place.
        ranges: Ranges of the inputs of its convolutions; others stay as they are.

    Raises:
        ValueError: The network has no convolution of a name in `ranges`.
    """
    left = dict(ranges)
    for node in network.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        weights = node.input_value(1).get_node()
        name = weights.get_friendly_name().removeprefix(_PREFIX).removesuffix(_SUFFIX)
        if name not in left:
            continue

        _round(node, 0, *with_zero(*left.pop(name)), _INPUT_LEVELS)
        # Each output channel has a range of its own; one without weights needs some range.
        largest = np.abs(weights.data).max(axis=(1, 2, 3), keepdims=True)
        largest = np.where(largest > 0, largest, 1)
        _round(node, 1, -largest, largest, _WEIGHT_LEVELS)

    if left:
        raise ValueError(f"the exported network has no layer {min(left)!r}: it has no 8-bit form")


def with_zero(low: float, high: float) -> tuple[float, float]:
    """Widen and move a range a little, so that zero is one of the levels, as padding needs.

    Args:
        low: Least value.
        high: Largest value.

    Returns:
        The new range, which contains zero.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (_INPUT_LEVELS - 1)
    below = round(-low / step)
    return -below * step, (_INPUT_LEVELS - 1 - below) * step


def _round(node: Any, number: int, low: Any, high: Any, levels: int) -> None:
    """Put a rounding to levels before an input of a node."""
    from openvino import opset8

    ends = [opset8.constant(np.asarray(value, np.float32)) for value in (low, high, low, high)]
    rounded = opset8.fake_quantize(node.input_value(number), *ends, levels)
    node.input(number).replace_source_output(rounded.output(0))

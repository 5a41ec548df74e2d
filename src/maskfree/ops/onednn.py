"""Products of float32 matrices by oneDNN, on processors where it is faster than MKL.

torch multiplies matrices with MKL, which leaves out AVX-512 on AMD processors; oneDNN, which torch
brings too, does not. Results are alike but for rounding.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor


@cache
def is_faster() -> bool:
    """Tell whether this processor multiplies matrices faster with oneDNN than with MKL.

    Returns:
        True on an AMD processor with AVX-512, if this torch has the operation.
    """
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def takes(first: Tensor, second: Tensor) -> bool:
    """Tell whether two tensors are of the kind that this module multiplies.

    Args:
        first: Tensor of any kind and device.
        second: Another one.

    Returns:
        True for float32 on the CPU.
    """
    kinds = {(each.dtype, each.device.type) for each in (first, second)}
    return kinds == {(torch.float32, "cpu")}


def linear(
    features: Float[Tensor, "n c"], weight: Float[Tensor, "d c"], bias: Float[Tensor, " d"] | None
) -> Float[Tensor, "n d"]:
    """Map features linearly by oneDNN, without a gradient.

    Args:
        features: Features of float32 on the CPU.
        weight: Weight of the same kind.
        bias: Bias, if any.

    Returns:
        Mapped features.
    """
    # Rows that are repeated without a copy are not known to oneDNN.
    return torch.ops.mkldnn._linear_pointwise(features.contiguous(), weight, bias, "none", [], "")


def products(first: Float[Tensor, "n c"], second: Float[Tensor, "m c"]) -> Float[Tensor, "n m"]:
    """Multiply each row of a matrix with each row of another, by what is faster.

    Args:
        first: Rows, of any kind and device.
        second: Other rows.

    Returns:
        Their products; without a gradient where oneDNN computes them.
    """
    if takes(first, second) and is_faster():
        return linear(first, second, None)
    return first @ second.T

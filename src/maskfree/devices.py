"""Choice of the device that a network runs on."""

from __future__ import annotations

import torch


def available() -> list[str]:
    """List the available devices, the fastest kind first.

    Returns:
        Names as PyTorch takes them, such as "cuda:0", "mps" and "cpu".
    """
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*(f"cuda:{number}" for number in cuda), *mps, "cpu"]


def resolve(device: str | torch.device = "auto") -> str:
    """Return the name of an available device.

    Args:
        device: "auto" (the first available of cuda, mps and cpu), "cpu", "mps", "cuda" or "cuda:N".

    Returns:
        Device name as PyTorch takes it.

    Raises:
        ValueError: The device is not available; the message lists those that are.
    """
    there, name = available(), str(device)
    if name == "auto":
        return there[0].partition(":")[0]

    # "cuda" is a name of "cuda:0", and PyTorch spells some devices "mps:0" and "cpu:0".
    if name in there or f"{name}:0" in there or name.removesuffix(":0") in there:
        return name
    raise ValueError(f"the device {name!r} is not there: choose from {', '.join(('auto', *there))}")

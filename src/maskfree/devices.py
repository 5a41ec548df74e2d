"""Choice of the device that a network runs on."""

from __future__ import annotations

import torch


def available() -> list[str]:
    """List the available devices, the fastest kind first.

    Returns:
        Names as PyTorch takes them, such as "cuda:0", "mps" and "cpu".
    """
    devices = []
    if torch.cuda.is_available():
        devices += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def resolve(device: str | torch.device = "auto") -> str:
    """Return the name of an available device.

    Args:
        device: "auto" (the first available of cuda, mps and cpu), "cpu", "mps", "cuda" or "cuda:N".

    Returns:
        Device name as PyTorch takes it.

    Raises:
        ValueError: The device is not available; the message lists those that are.
    """
    known, name = available(), str(device)
    if name == "auto":
        return known[0].partition(":")[0]

    # "cuda" is a name of "cuda:0", and PyTorch spells some devices "mps:0" and "cpu:0".
    if name in known or f"{name}:0" in known or name.removesuffix(":0") in known:
        return name
    raise ValueError(f"the device {name!r} is not there: choose from {', '.join(('auto', *known))}")

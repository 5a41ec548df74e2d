"""The devices that a network can run on here."""

from __future__ import annotations

import torch


def available() -> list[str]:
    """Return the names of all devices that are there, the fastest kind first."""
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*(f"cuda:{number}" for number in cuda), *mps, "cpu"]


def resolve(device: str | torch.device = "auto") -> str:
    """Return the name of a device that is there.

    Args:
        device: "auto" (cuda, mps or cpu, the first that is there), "cpu", "mps", "cuda" or "cuda:N".

    Raises:
        ValueError: there is no such device; the message lists what is there.
    """
    there, name = available(), str(device)
    if name == "auto":
        return there[0].partition(":")[0]

    # "cuda" is a name of "cuda:0", and PyTorch spells some devices "mps:0" and "cpu:0".
    if name in there or f"{name}:0" in there or name.removesuffix(":0") in there:
        return name
    raise ValueError(f"the device {name!r} is not there: choose from {', '.join(('auto', *there))}")

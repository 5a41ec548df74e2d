"""Compute losses in float32, whatever the precision of the networks before them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Loss = TypeVar("Loss", bound=Callable[..., Tensor])


def full_precision(loss: Loss) -> Loss:
    """Decorate a loss to run without autocast, on float32 copies of half-precision tensors.

    Args:
        loss: Loss function; at least one argument is a tensor.

    Returns:
        The wrapped loss function.
    """

    @wraps(loss)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        """Call the loss in float32.

        Args:
            *args: Positional arguments of the loss.
            **kwargs: Keyword arguments of the loss.

        Returns:
            The loss.
        """
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        device = next(tensors).device
        args = tuple(_widened(value) for value in args)
        kwargs = {name: _widened(value) for name, value in kwargs.items()}

        # Autocast would run the matrix products in half precision.
        with torch.autocast(device.type, enabled=False):
            return loss(*args, **kwargs)

    return cast(Loss, run)


def _widened(value: Any) -> Any:
    """Convert a half-precision tensor to float32; anything else is returned as it is."""
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value

"""Losses are computed in single precision, whatever the networks before them use."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Loss = TypeVar("Loss", bound=Callable[..., Tensor])


def full_precision(loss: Loss) -> Loss:
    """Return LOSS without autocast, which would take its matrix products in half precision, and on float32 tensors."""

    @wraps(loss)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        device = next(
            value.device for value in (*args, *kwargs.values()) if isinstance(value, Tensor)
        )
        with torch.autocast(device.type, enabled=False):
            return loss(
                *map(_widened, args), **{name: _widened(value) for name, value in kwargs.items()}
            )

    return cast(Loss, run)


def _widened(value: Any) -> Any:
    return (
        value.float()
        if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        else value
    )

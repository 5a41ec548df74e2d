"""Steps without effect, whose gradient is not finite, and the loss scale that they lower."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int
from torch import Tensor, nn
from torch.amp import GradScaler

log = logging.getLogger(__name__)

MAX_IN_A_ROW = 10
"""Skipped steps in a row that stop a run.

Single batches that overflow are followed by good ones, and a loss scaler halves its scale with each
skipped step, which finds a fitting one within ten. Weights that have diverged never recover.
"""


class SkippedSteps:
    """Counts the steps whose gradient was not finite, and takes back what they changed."""

    def __init__(self) -> None:
        self.total, self.in_a_row = 0, 0
        self._buffers: dict[str, Tensor] = {}

    def remember(self, module: nn.Module) -> None:
        """Copy the buffers before a step, such as batch statistics and memory banks.

        Args:
            module: Module that the step may change.
        """
        self._buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}

    def skip(self, module: nn.Module, norm: Tensor, step: int) -> None:
        """Count a step and give the buffers the values that they had before it.

        Args:
            module: The module that was given to `remember`.
            norm: Norm of the gradient.
            step: Number of the step, from 1.

        Raises:
            ValueError: Too many steps in a row were skipped.
        """
        for name, before in self._buffers.items():
            owner, _, own_name = name.rpartition(".")
            # Set and not copied: a memory bank may have grown.
            setattr(module.get_submodule(owner), own_name, before)

        self.total, self.in_a_row = self.total + 1, self.in_a_row + 1
        if self.in_a_row >= MAX_IN_A_ROW:
            raise ValueError(
                f"the gradient is {norm} in step {step}, the last of {self.in_a_row} in a row that "
                "were skipped: try a smaller train.learning_rate"
            )
        log.warning("skipped step %d: the gradient is %s", step, norm.item())

    def tensor(self) -> Int[Tensor, " n"]:
        """Write the counts for a training state.

        Returns:
            All skipped steps, and those in a row up to now.
        """
        return torch.tensor([self.total, self.in_a_row])

    def restore(self, counts: Sequence[int]) -> None:
        """Go back to saved counts.

        Args:
            counts: Values of `tensor`.
        """
        self.total, self.in_a_row = counts


def scale_of(scaler: GradScaler) -> Float64[Tensor, " n"]:
    """Write the loss scale of float16 for a training state.

    Args:
        scaler: Scaler of the losses.

    Returns:
        The scale, and the steps since it changed.
    """
    state = scaler.state_dict()
    return torch.tensor([state["scale"], state["_growth_tracker"]], dtype=torch.float64)


def set_scale(scaler: GradScaler, values: Float64[Tensor, " n"]) -> None:
    """Go back to a saved loss scale.

    Args:
        scaler: Scaler of the losses.
        values: What `scale_of` returned.
    """
    scale, steps = values.tolist()
    scaler.load_state_dict(scaler.state_dict() | {"scale": scale, "_growth_tracker": int(steps)})

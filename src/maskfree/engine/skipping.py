"""Steps without effect: those whose gradient is not finite."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

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
        self._buffers: list[Tensor] = []

    def remember(self, module: nn.Module) -> None:
        """Copy the buffers before a step, such as batch statistics and memory banks.

        Args:
            module: Module that the step may change.
        """
        self._buffers = [buffer.detach().clone() for buffer in module.buffers()]

    def skip(self, module: nn.Module, norm: Tensor, step: int) -> None:
        """Count a step and give the buffers the values that they had before it.

        Args:
            module: The module that was given to `remember`.
            norm: Norm of the gradient.
            step: Number of the step, from 1.

        Raises:
            ValueError: Too many steps in a row were skipped.
        """
        for buffer, before in zip(module.buffers(), self._buffers, strict=True):
            buffer.detach().copy_(before)

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

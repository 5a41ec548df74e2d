"""Forward pass of a method in the form that Fabric's wrapper takes."""

from __future__ import annotations

from torch import Tensor, nn

from maskfree.method import Method
from maskfree.types import Batch

Report = dict[str, dict[str, Tensor]]
"""Losses and metrics, each by name."""


class Sealed:
    """Wraps a batch so that Fabric, which refuses frozen dataclasses, passes it on as is."""

    def __init__(self, batch: Batch):
        """Wrap a batch.

        Args:
            batch: Batch of this process.
        """
        self.batch = batch


class Forward(nn.Module):
    """Module that returns a method's losses as plain dicts, for the distributed wrapper."""

    def __init__(self, method: Method):
        """Wrap a method.

        Args:
            method: Method whose losses are computed.
        """
        super().__init__()
        self.method = method

    def forward(self, sealed: Sealed) -> Report:
        """Compute the losses of one batch.

        Args:
            sealed: Wrapped batch of this process.

        Returns:
            Total loss with its terms, and metrics.
        """
        losses = self.method(sealed.batch)
        return {"loss": {"total": losses.total, **losses.terms}, "metrics": dict(losses.metrics)}

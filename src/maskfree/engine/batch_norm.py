"""Batch normalization whose statistics are those of the batches of all processes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.distributed import all_reduce
from torch.nn import functional as F

_LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d)


class SumOverProcesses(torch.autograd.Function):
    """Differentiable sum of a tensor over all processes.

    Backward sums the gradients as well, as `maskfree.engine.gather.Gather` does.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        """Sum the tensors of all processes.

        Args:
            ctx: Autograd context, unused.
            tensor: Tensor of this process, of the same shape in all processes.

        Returns:
            The sum, the same in all processes.
        """
        total = tensor.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Sum the gradients of all processes.

        Args:
            ctx: Autograd context, unused.
            gradient: Gradient of this process's loss in the sum.

        Returns:
            Gradient in this process's tensor.
        """
        total = gradient.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total


class SyncedBatchNorm(nn.Module):
    """Batch normalization over the batches of all processes, on any device.

    Parameters and running statistics are those of the layer that it replaces, under the same names.
    Batches may have different sizes.

    Differs: torch's `SyncBatchNorm` does not run on a CPU.
    """

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d):
        """Take over a layer.

        Args:
            layer: Batch normalization with running statistics.
        """
        super().__init__()
        assert layer.momentum is not None, "running statistics move by a fixed momentum"
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        for name, buffer in layer.named_buffers():
            self.register_buffer(name, buffer)
        self._eps, self._momentum = layer.eps, layer.momentum
        self.train(layer.training)

    def forward(self, features: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """Normalize each channel.

        Args:
            features: Features of this process; all processes call this together in training.

        Returns:
            Normalized features.
        """
        if not self.training:
            return F.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, eps=self._eps
            )

        axes = [0, *range(2, features.ndim)]
        shape = [1, -1, *[1] * (features.ndim - 2)]
        values = features.float()

        # Sums and counts, so that every sample has the same weight.
        number = values.new_tensor([values.numel() / values.shape[1]])
        sums: Tensor = SumOverProcesses.apply(torch.cat([values.sum(axes), number]))  # pyright: ignore[reportAssignmentType]
        number = sums[-1].detach()
        mean = sums[:-1] / number

        # Deviations from the common mean lose no digits.
        centered = values - mean.view(shape)
        squares: Tensor = SumOverProcesses.apply(centered.square().sum(axes))  # pyright: ignore[reportAssignmentType]
        variance = squares / number
        self._follow(mean.detach(), squares.detach() / (number - 1).clamp_min(1))

        scale = self.weight * (variance + self._eps).rsqrt()
        return (centered * scale.view(shape) + self.bias.view(shape)).to(features.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics; the variance is the unbiased one, as in torch."""
        self.running_mean.lerp_(mean, self._momentum)
        self.running_var.lerp_(variance, self._momentum)
        self.num_batches_tracked.add_(1)


def sync_batch_norms(module: nn.Module) -> None:
    """Replace every batch normalization inside a module by one over all processes.

    Args:
        module: Module that is changed in place; names of its tensors stay.
    """
    for name, child in module.named_children():
        if isinstance(child, _LAYERS):
            setattr(module, name, SyncedBatchNorm(child))
        else:
            sync_batch_norms(child)

"""Differentiable all-gather, by which losses see the batches of all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.distributed import all_gather, all_reduce, get_rank, get_world_size


class Gather(torch.autograd.Function):
    """Differentiable all-gather along the first axis, for tensors of one shape.

    Backward sums the gradients over the processes; the wrapper averages those of the parameters, so
    the gradient of a loss over the gathered batch is exact.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        """Concatenate the tensors of all processes.

        Args:
            ctx: Autograd context, unused.
            tensor: Tensor of this process, of the same shape in all processes.

        Returns:
            Tensors of all processes along the first axis, in the order of their ranks.
        """
        # all_gather needs contiguous tensors of one memory format.
        order = torch.contiguous_format
        everyone = [torch.empty_like(tensor, memory_format=order) for _ in range(get_world_size())]
        all_gather(everyone, tensor.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Sum the gradients over the processes.

        Args:
            ctx: Autograd context, unused.
            gradient: Gradient of this process's loss in the gathered tensor.

        Returns:
            This process's part of the summed gradient.
        """
        total = gradient.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total.chunk(get_world_size())[get_rank()]

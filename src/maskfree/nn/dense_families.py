"""Families of image encoders for dense prediction: how each is built from transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maskfree.nn.clip_resnet import DenseClipResNet, make_resnet
from maskfree.nn.configurations import read_configuration
from maskfree.nn.dense_clip import DenseClip
from maskfree.nn.dense_clip_config import DenseClipConfig
from maskfree.nn.dense_siglip import DenseNaflex, DenseSiglip
from maskfree.nn.dense_tipsv2 import DenseTipsv2
from maskfree.nn.dense_tower import DenseTower
from maskfree.nn.dense_transformer import DenseTransformer
from maskfree.nn.pretrained import make_tower


@dataclass(frozen=True)
class DenseFamily:
    """How the image encoders of one family are built."""

    configuration: str
    """Name of the configuration class in transformers."""
    model: str
    """Name of the model class in transformers."""
    encoder: Callable[..., DenseTransformer]
    """Class that reads the network."""
    statistics: str
    """Name of the color normalization, a key of `image_encoder.STATISTICS`."""
    bicubic_positions: bool
    """Positions are resized here, bicubic; otherwise by the network, in its only way."""


DENSE_FAMILIES = {
    "clip": DenseFamily(
        "CLIPVisionConfig", "CLIPVisionModelWithProjection", DenseClip, "clip", True
    ),
    "metaclip_2": DenseFamily(
        "MetaClip2VisionConfig", "MetaClip2VisionModelWithProjection", DenseClip, "clip", True
    ),
    "siglip": DenseFamily("SiglipVisionConfig", "SiglipVisionModel", DenseSiglip, "half", True),
    "siglip2": DenseFamily("Siglip2VisionConfig", "Siglip2VisionModel", DenseNaflex, "half", False),
    "tipsv2": DenseFamily("Tipsv2VisionConfig", "Tipsv2VisionModel", DenseTipsv2, "none", False),
}
"""Families that transformers has, by the model type in their config.json."""


def build_dense_tower(config: DenseClipConfig) -> DenseTower:
    """Build an image encoder for dense prediction and load its pretrained weights, if any.

    Args:
        config: Settings of the encoder.

    Returns:
        The encoder.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: The settings do not fit the family, or the weights do not fit the network.
    """
    if config.family == "clip_resnet":
        return DenseClipResNet(
            tower=make_resnet(config.architecture), statistics=config.statistics or "clip"
        )

    family = DENSE_FAMILIES[config.family]
    options = {}
    if family.bicubic_positions:
        options["positions"] = config.positions
    elif config.positions != "size":
        raise ValueError(
            f"positions is {config.positions!r}: a {config.family} resizes its positions itself, "
            "leave it out"
        )

    configuration = vision_configuration(config)
    if not isinstance(configuration.patch_size, int):
        raise ValueError(
            f"patch_size is {configuration.patch_size!r}: patches have one side, an integer"
        )
    # SigLIP embeds by its pooling, which its configuration can switch off.
    if not getattr(configuration, "vision_use_head", True):
        raise ValueError(f"vision_use_head is off: a {config.family} without it embeds nothing")

    return family.encoder(
        tower=make_tower(family.model, configuration, config.weights),
        last_block=config.last_block,
        statistics=config.statistics or family.statistics,
        **options,
    )


def vision_configuration(config: DenseClipConfig) -> Any:
    """Return the transformers configuration of an image encoder.

    Args:
        config: Settings of an encoder whose family is in `DENSE_FAMILIES`.

    Returns:
        The configuration, with the values that the settings override.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: The architecture names no field of the configuration, or a value does not fit.
    """
    name = DENSE_FAMILIES[config.family].configuration
    return read_configuration(name, config.weights, config.architecture)

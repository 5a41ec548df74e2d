"""Families of image-text models that transformers has: where the joint space is and ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from maskfree.nn.projection_config import ProjectionConfig


@dataclass(frozen=True)
class ImageTextFamily:
    """What differs between the models of different families, apart from their two encoders."""

    configuration: str
    """Name of the configuration class in transformers."""
    model: str
    """Name of the model class in transformers."""
    last_block: str
    """Preset of the last block that is published for the family, a key of `PRESETS`."""
    dim: Callable[[Any], int]
    """Function of the configuration that returns the dimension of the joint space."""
    image_states_dim: bool
    """The image encoder's configuration has the dimension too, as `projection_dim`."""
    text_projection: ProjectionConfig
    """Projection of text features to the joint space."""
    text_end: Callable[[Any], tuple[dict[str, Tensor], Tensor]]
    """Function of the model that returns weights of the text projection and the log of the scale of
    cosines."""
    fills_texts: bool
    """Texts are filled up to full length with a padding token that the encoder attends to."""
    lower_case: bool
    """Texts were in lower case in training; not all published tokenizers see to it."""


def _clip_end(model: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Return the end of the text side of CLIP or MetaCLIP 2."""
    return model.text_projection.state_dict(), model.logit_scale.detach()


def _siglip_end(model: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Return the end of the text side of SigLIP, whose projection is the head of its encoder."""
    return model.text_model.head.state_dict(), model.logit_scale.detach().squeeze()


def _tipsv2_end(model: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Return the end of the text side of TIPSv2, which has a temperature but no projection."""
    return {}, -torch.log(model.temperature.detach())


def _projection_dim(configuration: Any) -> int:
    """Return the joint dimension of CLIP; those in its encoders' configurations may differ."""
    return configuration.projection_dim


def _projection_size(configuration: Any) -> int:
    """Return the joint dimension of SigLIP."""
    return configuration.text_config.projection_size


def _hidden_size(configuration: Any) -> int:
    """Return the joint dimension of TIPSv2, the width of both encoders."""
    return configuration.text_config.hidden_size


_CLIP = ImageTextFamily(
    configuration="CLIPConfig",
    model="CLIPModel",
    last_block="maskclip",
    dim=_projection_dim,
    image_states_dim=True,
    text_projection=ProjectionConfig(bias=False),
    text_end=_clip_end,
    fills_texts=False,
    lower_case=False,
)
_SIGLIP = ImageTextFamily(
    configuration="SiglipConfig",
    model="SiglipModel",
    last_block="trained",
    dim=_projection_size,
    image_states_dim=False,
    text_projection=ProjectionConfig(),
    text_end=_siglip_end,
    fills_texts=True,
    lower_case=True,
)
IMAGE_TEXT_FAMILIES = {
    "clip": _CLIP,
    "metaclip_2": replace(_CLIP, configuration="MetaClip2Config", model="MetaClip2Model"),
    "siglip": _SIGLIP,
    "siglip2": replace(_SIGLIP, configuration="Siglip2Config", model="Siglip2Model"),
    "tipsv2": ImageTextFamily(
        configuration="Tipsv2Config",
        model="Tipsv2Model",
        last_block="trained",
        dim=_hidden_size,
        image_states_dim=False,
        text_projection=ProjectionConfig("identity"),
        text_end=_tipsv2_end,
        fills_texts=False,
        lower_case=True,
    ),
}
"""Families by the model type in their config.json."""

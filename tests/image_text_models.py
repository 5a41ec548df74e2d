"""Image-text models of transformers with a few thousand random weights, one of each family."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.nn.dense_clip_config import DenseClipConfig
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.nn.image_text_families import IMAGE_TEXT_FAMILIES
from tiny import TINY_CLIP_TEXT, TINY_CLIP_VISION

_NAFLEX = {name: value for name, value in TINY_CLIP_VISION.items() if name != "image_size"}
_TIPSV2 = {name: value for name, value in TINY_CLIP_VISION.items() if name != "intermediate_size"}
_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": (
        "CLIP",
        {"projection_dim": 18, "text_config": TINY_CLIP_TEXT, "vision_config": TINY_CLIP_VISION},
    ),
    "metaclip_2": (
        "MetaClip2",
        {"projection_dim": 18, "text_config": TINY_CLIP_TEXT, "vision_config": TINY_CLIP_VISION},
    ),
    "siglip": (
        "Siglip",
        {
            "text_config": TINY_CLIP_TEXT | {"projection_size": 24},
            "vision_config": TINY_CLIP_VISION,
        },
    ),
    "siglip2": (
        "Siglip2",
        {
            "text_config": TINY_CLIP_TEXT | {"projection_size": 24},
            "vision_config": _NAFLEX | {"num_patches": 16},
        },
    ),
    "tipsv2": (
        "Tipsv2",
        {
            "text_config": TINY_CLIP_TEXT | {"hidden_size": 24},
            "vision_config": _TIPSV2 | {"mlp_ratio": 1.5, "num_register_tokens": 2},
        },
    ),
}
_DIMS = {"clip": 18, "metaclip_2": 18, "siglip": 24, "siglip2": 24, "tipsv2": 24}
FAMILIES = tuple(_SETTINGS)
"""Model types of transformers."""


@torch.no_grad()
def image_text_model(family: str) -> Any:
    """A model of a family; every weight is random, also those that start as 0 or 1."""
    name, settings = _SETTINGS[family]
    configuration = getattr(transformers, f"{name}Config")(**settings)
    model: nn.Module = getattr(transformers, f"{name}Model")(configuration)
    for weights in model.parameters():
        if weights.ndim:
            weights.add_(0.3 * torch.randn_like(weights))
    return model.eval()


def tiny_family_config(family: Any) -> MaskCLIPConfig:
    """Settings of MaskCLIP that build a random model of a family."""
    settings, dim = _SETTINGS[family][1], _DIMS[family]
    image = settings["vision_config"]
    if IMAGE_TEXT_FAMILIES[family].image_states_dim:
        image = image | {"projection_dim": dim}
    return MaskCLIPConfig(
        image=DenseClipConfig(family, image),
        text=TextEncoderConfig(family, settings["text_config"], frozen=True),
        text_projection=IMAGE_TEXT_FAMILIES[family].text_projection,
        embed_dim=dim,
    )

"""CLIP's weights: OpenAI's and open_clip's names turned into those of transformers' CLIPModel, and its ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from maskfree.nn.encoder_config import Value
from maskfree.nn.pretrained import make_tower, read_configuration, read_settings

_HEAD_WIDTH = 64  # of every published ViT of OpenAI; the tensors do not tell it
_DROPPED = {
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
    "text.attn_mask",
}  # no weights
_TOWERS = {"visual.transformer.": "vision_model.encoder.", "transformer.": "text_model.encoder."}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_MODULES = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
_SINGLE = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
}
_TURNED = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}  # x @ W there


def is_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether the image tower of a CLIP is a ResNet."""
    return "visual.attnpool.positional_embedding" in state


def clip_architectures(
    state: Mapping[str, Tensor],
    activation: str = "quick_gelu",
    heads: tuple[int, int] | None = None,
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Read the sizes of the image and the text tower off STATE.

    They are fields of transformers' configurations, or for a ResNet arguments of open_clip's. ACTIVATION is
    "quick_gelu" in OpenAI's models and "gelu" in most of open_clip's. HEADS are the attention heads of both towers; by
    default one for each 64 channels.

    Raises:
        ValueError: STATE is no CLIP, or the heads do not divide the channels.
    """
    resnet = is_resnet(state)
    needed = [*_SINGLE, *_TURNED, *(f"{start}resblocks.0.mlp.c_fc.weight" for start in _TOWERS)]
    if resnet:
        needed = [
            "visual.attnpool.c_proj.weight",
            *(key for key in needed if not key.startswith("visual.")),
        ]
    if missing := [key for key in needed if key not in state]:
        raise ValueError(
            f"the weights are no CLIP of OpenAI's or open_clip's kind; missing: {_listed(missing)}"
        )
    vocabulary, width = state["token_embedding.weight"].shape
    shared: dict[str, Value] = {
        "projection_dim": state["text_projection"].shape[1],
        "hidden_act": activation,
    }
    text: dict[str, Value] = {
        "vocab_size": vocabulary,
        "max_position_embeddings": len(state["positional_embedding"]),
        "eos_token_id": vocabulary - 1,
        **_transformer(state, "transformer.", width, heads[1] if heads else None),
    }
    if resnet:
        return _resnet(state), shared | text
    width, _, patch_px, _ = state["visual.conv1.weight"].shape
    vision: dict[str, Value] = {
        "patch_size": patch_px,
        "image_size": isqrt(len(state["visual.positional_embedding"]) - 1) * patch_px,
        **_transformer(state, "visual.transformer.", width, heads[0] if heads else None),
    }
    return shared | vision, shared | text


def _transformer(
    state: Mapping[str, Tensor], start: str, width: int, heads: int | None
) -> dict[str, Value]:
    number = width // _HEAD_WIDTH if heads is None else heads
    if number < 1 or width % number:
        raise ValueError(
            f"{number} attention heads do not divide {width} channels: give both numbers of heads"
        )
    return {
        "hidden_size": width,
        "num_attention_heads": number,
        "num_hidden_layers": _count(state, rf"{re.escape(start)}resblocks\.(\d+)\."),
        "intermediate_size": len(state[f"{start}resblocks.0.mlp.c_fc.weight"]),
    }


def _resnet(state: Mapping[str, Tensor]) -> dict[str, Value]:
    """Arguments of open_clip's ModifiedResNet; its pool has 32 channels for each of the width, 64 of them a head."""
    output_dim, channels = state["visual.attnpool.c_proj.weight"].shape
    return {
        "layers": [_count(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
        "output_dim": output_dim,
        "heads": max(1, channels // _HEAD_WIDTH),
        "image_size": isqrt(len(state["visual.attnpool.positional_embedding"]) - 1) * 32,
        "width": channels // 32,
    }


def renamed_clip(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of STATE the names and shapes of EXPECTED, the state of a `transformers.CLIPModel`; float32.

    EXPECTED may be that of a part, such as the image tower: then STATE must hold that part only. What EXPECTED has
    under the same name, as a ResNet's, keeps it.

    Raises:
        ValueError: a tensor is missing, left over or misshapen; the message names which.
    """
    renamed: dict[str, Tensor] = {}
    left_over = []
    for key, tensor in state.items():
        if key in _DROPPED or key.endswith(".num_batches_tracked"):
            continue
        parts = {key: tensor} if key in expected else _rename(key, tensor)
        if parts is None or not parts.keys() <= expected.keys():
            left_over.append(key)
        else:
            renamed |= parts
    problems = {
        "missing": sorted(expected.keys() - renamed.keys()),
        "left over": left_over,
        "misshapen": [
            f"{name} {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            for name, tensor in renamed.items()
            if tensor.shape != expected[name].shape
        ],
    }
    if found := [f"{kind}: {_listed(keys)}" for kind, keys in problems.items() if keys]:
        raise ValueError(f"the weights do not fill a CLIP; {'; '.join(found)}")
    return {name: tensor.float() for name, tensor in renamed.items()}


def _rename(key: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """The tensor, or the three that are joined in it, by transformers' names; None if there is none."""
    if key in _SINGLE:
        return {_SINGLE[key]: tensor}
    if key in _TURNED:
        return {_TURNED[key]: tensor.T}
    module, _, kind = key.rpartition(".")
    if module in _MODULES:
        return {f"{_MODULES[module]}.{kind}": tensor}
    for theirs, ours in _TOWERS.items():
        if match := re.fullmatch(rf"{re.escape(theirs)}resblocks\.(\d+)\.(.+)", key):
            return _rename_in_layer(f"{ours}layers.{match[1]}", match[2], tensor)
    return None


def _rename_in_layer(layer: str, key: str, tensor: Tensor) -> dict[str, Tensor] | None:
    if key in ("attn.in_proj_weight", "attn.in_proj_bias"):
        if len(tensor) % 3:
            return None
        kind = key.rpartition("_")[2]
        return {
            f"{layer}.self_attn.{n}_proj.{kind}": part
            for n, part in zip("qkv", tensor.chunk(3), strict=True)
        }
    module, _, kind = key.rpartition(".")
    return {f"{layer}.{_LAYER[module]}.{kind}": tensor} if module in _LAYER else None


def _count(state: Mapping[str, Any], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{', '.join(keys[:3])}{more}"


def model_type(source: str) -> str | None:
    """Return what kind of model transformers saved to the folder or Hugging Face name SOURCE, for example "clip".

    Raises:
        FileNotFoundError: there is nothing that can be read.
        ValueError: config.json is damaged.
    """
    return read_settings(source).get("model_type")


def read_text_end(source: str, family: str) -> tuple[dict[str, Tensor], Tensor]:
    """Read what follows the text tower of a CLIPModel or SiglipModel: its projection, and the log of its scale.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: they lack a tensor.
    """
    if family == "siglip":
        model = make_tower("SiglipModel", read_configuration("SiglipConfig", source, {}), source)
        return model.text_model.head.state_dict(), model.logit_scale.detach().squeeze()
    model = make_tower("CLIPModel", read_configuration("CLIPConfig", source, {}), source)
    return model.text_projection.state_dict(), model.logit_scale.detach()

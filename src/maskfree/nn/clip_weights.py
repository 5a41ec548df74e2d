"""Conversion of OpenAI's and open_clip's weights to the names of transformers' CLIPModel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from maskfree.files.tensors import listed_names
from maskfree.nn.configurations import read_configuration, read_settings
from maskfree.nn.encoder_config import Value
from maskfree.nn.image_text_families import IMAGE_TEXT_FAMILIES
from maskfree.nn.pretrained import make_tower

# Channels per attention head of every published ViT of OpenAI; tensors do not show it.
_HEAD_WIDTH = 64
# Entries of checkpoints that are no weights.
_DROPPED = {
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
    "text.attn_mask",
}
# Prefixes of the image and the text transformer.
_TOWERS = {"visual.transformer.": "vision_model.encoder.", "transformer.": "text_model.encoder."}
# Modules of a transformer layer.
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
# Normalization layers outside the transformer layers.
_MODULES = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
# Tensors that belong to no layer.
_SINGLE = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
}
# Matrices that are multiplied from the right there, and transposed here.
_TURNED = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}


def is_resnet(state: Mapping[str, Tensor]) -> bool:
    """Return whether the image encoder of a CLIP checkpoint is a ResNet.

    Args:
        state: State dict of the checkpoint.

    Returns:
        True for a ResNet, False for a vision transformer.
    """
    return "visual.attnpool.positional_embedding" in state


def clip_architectures(
    state: Mapping[str, Tensor],
    activation: str = "quick_gelu",
    heads: tuple[int, int] | None = None,
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Infer the architecture of a CLIP checkpoint from its tensors.

    Args:
        state: State dict in the names of OpenAI or open_clip.
        activation: Activation function, "quick_gelu" in OpenAI's models and "gelu" in most of
            open_clip's.
        heads: Number of attention heads of the image and the text encoder; None: one for each 64
            channels.

    Returns:
        Architectures of the image and the text encoder: fields of transformers' configurations, or
        for a ResNet arguments of open_clip's ModifiedResNet.

    Raises:
        ValueError: The state is not that of a CLIP, or the heads do not divide the channels.
    """
    resnet = is_resnet(state)

    # Tensors that show the sizes; the first layer stands for all.
    needed = [*_SINGLE, *_TURNED, *(f"{start}resblocks.0.mlp.c_fc.weight" for start in _TOWERS)]
    if resnet:
        of_text = [key for key in needed if not key.startswith("visual.")]
        needed = ["visual.attnpool.c_proj.weight", *of_text]

    if missing := [key for key in needed if key not in state]:
        raise ValueError(
            "the weights are no CLIP of OpenAI's or open_clip's kind; "
            f"missing: {listed_names(missing)}"
        )

    image_heads, text_heads = heads or (None, None)

    # Text encoder: the end token is the last of the vocabulary.
    vocabulary, width = state["token_embedding.weight"].shape
    shared: dict[str, Value] = {
        "projection_dim": state["text_projection"].shape[1],
        "hidden_act": activation,
    }
    text: dict[str, Value] = {
        "vocab_size": vocabulary,
        "max_position_embeddings": len(state["positional_embedding"]),
        "eos_token_id": vocabulary - 1,
        **_transformer(state, "transformer.", width, text_heads),
    }
    if resnet:
        return _resnet(state), shared | text

    # Image encoder: positions are those of a square patch grid and the class token.
    width, _, patch_px, _ = state["visual.conv1.weight"].shape
    vision: dict[str, Value] = {
        "patch_size": patch_px,
        "image_size": isqrt(len(state["visual.positional_embedding"]) - 1) * patch_px,
        **_transformer(state, "visual.transformer.", width, image_heads),
    }

    return shared | vision, shared | text


def _transformer(
    state: Mapping[str, Tensor], start: str, width: int, heads: int | None
) -> dict[str, Value]:
    """Return the architecture of a transformer whose tensor names begin with `start`."""
    # Published models have a fixed number of channels per head.
    number = heads
    if number is None:
        number = width // _HEAD_WIDTH

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
    """Return the arguments of open_clip's ModifiedResNet."""
    # The pooling has 32 channels for each of the width, and 64 channels per head.
    output_dim, channels = state["visual.attnpool.c_proj.weight"].shape
    return {
        "layers": [_count(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
        "output_dim": output_dim,
        "heads": max(1, channels // _HEAD_WIDTH),
        "image_size": isqrt(len(state["visual.attnpool.positional_embedding"]) - 1) * 32,
        "width": channels // 32,
    }


def renamed_clip(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a CLIP checkpoint to the names and shapes of transformers' CLIPModel.

    Names that both have, such as those of a ResNet, are kept.

    Args:
        state: State dict in the names of OpenAI or open_clip.
        expected: State dict of a `transformers.CLIPModel`, or of a part such as the image encoder;
            then `state` must hold that part only.

    Returns:
        The tensors in float32 by their names in `expected`.

    Raises:
        ValueError: A tensor is missing, left over or of another shape; the message names it.
    """
    renamed: dict[str, Tensor] = {}
    left_over = []

    for key, tensor in state.items():
        # Counters of batch normalization are no weights.
        if key in _DROPPED or key.endswith(".num_batches_tracked"):
            continue

        # Names that are expected as they are, such as a ResNet's, are kept.
        if key in expected:
            parts = {key: tensor}
        else:
            parts = _rename(key, tensor)

        if parts is None or not parts.keys() <= expected.keys():
            left_over.append(key)
        else:
            renamed |= parts

    # Collect all problems, so that one message names them.
    problems = {
        "missing": sorted(expected.keys() - renamed.keys()),
        "left over": left_over,
        "misshapen": [
            f"{name} {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            for name, tensor in renamed.items()
            if tensor.shape != expected[name].shape
        ],
    }
    if found := [f"{kind}: {listed_names(keys)}" for kind, keys in problems.items() if keys]:
        raise ValueError(f"the weights do not fill a CLIP; {'; '.join(found)}")

    return {name: tensor.float() for name, tensor in renamed.items()}


def _rename(key: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """Return a tensor, or the three joined in it, by transformers' names; None if unknown."""
    if key in _SINGLE:
        return {_SINGLE[key]: tensor}

    if key in _TURNED:
        return {_TURNED[key]: tensor.T}

    module, _, kind = key.rpartition(".")
    if module in _MODULES:
        return {f"{_MODULES[module]}.{kind}": tensor}

    for published, own in _TOWERS.items():
        if match := re.fullmatch(rf"{re.escape(published)}resblocks\.(\d+)\.(.+)", key):
            return _rename_in_layer(f"{own}layers.{match[1]}", match[2], tensor)

    return None


def _rename_in_layer(layer: str, key: str, tensor: Tensor) -> dict[str, Tensor] | None:
    """Return a tensor of a transformer layer, split if joined, by transformers' names."""
    if key in ("attn.in_proj_weight", "attn.in_proj_bias"):
        if len(tensor) % 3:
            return None

        # Query, key and value are joined along the first axis.
        kind = key.rpartition("_")[2]
        names = [f"{layer}.self_attn.{name}_proj.{kind}" for name in "qkv"]
        return dict(zip(names, tensor.chunk(3), strict=True))

    module, _, kind = key.rpartition(".")
    if module not in _LAYER:
        return None
    return {f"{layer}.{_LAYER[module]}.{kind}": tensor}


def _count(state: Mapping[str, Any], pattern: str) -> int:
    """Count the distinct layer numbers that a pattern finds in the tensor names."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def model_type(source: str) -> str | None:
    """Return the type of model that transformers saved.

    Args:
        source: Local folder or Hugging Face name.

    Returns:
        The model type of config.json, such as "clip"; None if there is none.

    Raises:
        FileNotFoundError: There is nothing that can be read.
        ValueError: config.json is damaged.
    """
    return read_settings(source).get("model_type")


def read_text_end(source: str, family: str) -> tuple[dict[str, Tensor], Tensor]:
    """Load the text projection and the scale of an image-text model.

    Args:
        source: Local folder or Hugging Face name of the model.
        family: Key of `IMAGE_TEXT_FAMILIES`.

    Returns:
        State dict of the text projection, and the logarithm of the scale of the cosines.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: A tensor is missing.
    """
    kind = IMAGE_TEXT_FAMILIES[family]
    configuration = read_configuration(kind.configuration, source, {})
    return kind.text_end(make_tower(kind.model, configuration, source))

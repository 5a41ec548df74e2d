"""Read the released checkpoint of GroupViT without unpickling it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from pathlib import Path

from torch import Tensor

from maskfree.data.config import ViewConfig
from maskfree.hub.convert.released_file import read_released
from maskfree.hub.foreign_model import ForeignModel, save
from maskfree.inference.config import AUTHORS_INFERENCE
from maskfree.methods.groupvit.config import GroupViTConfig
from maskfree.text.templates import AUTHORS_TEMPLATES
from maskfree.text.tokenize import Tokenizer

TOKENIZER = "openai/clip-vit-base-patch16"
"""Default tokenizer: the authors' code has that of CLIP."""

# Channels of an attention head, in the image and in the text encoder of the released models.
_HEAD_CHANNELS = 64
_NUM_STAGES = 3
# Patterns of released names, each with the name in transformers' GroupViTModel.
_NAMES = (
    (r"img_encoder\.pos_embed", "vision_model.embeddings.position_embeddings"),
    (r"img_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embeddings.projection."),
    (r"img_encoder\.patch_embed\.norm\.", "vision_model.embeddings.layernorm."),
    (r"img_encoder\.norm\.", "vision_model.layernorm."),
    (r"img_encoder\.layers\.(\d+)\.blocks\.", r"vision_model.encoder.stages.\1.layers."),
    (r"img_encoder\.layers\.", "vision_model.encoder.stages."),
    (r"text_encoder\.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"text_encoder\.token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"text_encoder\.ln_final\.", "text_model.final_layer_norm."),
    (r"text_encoder\.transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"img_projector\.linear_hidden\.", "visual_projection."),
    (r"img_projector\.linear_out\.", "visual_projection.3."),
    (r"text_projector\.linear_hidden\.", "text_projection."),
    (r"text_projector\.linear_out\.", "text_projection.3."),
)
# Parts of a block: released name, and name in transformers.
_PARTS = (
    (r"(layers\.\d+\.)norm(\d)\.", r"\1layer_norm\2."),
    (r"(layers\.\d+\.)ln_(\d)\.", r"\1layer_norm\2."),
    (r"(layers\.\d+\.)attn\.(out_)?proj\.", r"\1self_attn.out_proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"pre_assign_attn\.attn\.proj\.", "pre_assign_attn.attn.out_proj."),
)
# Query, key and value in one tensor, as "attn.qkv.weight" or "attn.in_proj_weight".
_JOINED = re.compile(r"(layers\.\d+\.)attn\.(?:qkv\.|in_proj_)(weight|bias)$")


def convert_groupvit(file: Path, out: Path, tokenizer: str) -> None:
    """Convert a released GroupViT to a checkpoint.

    Args:
        file: Released file.
        out: Folder to write, which must not exist.
        tokenizer: Folder or name of the tokenizer.

    Raises:
        OSError: The file cannot be read, the folder exists or cannot be written, or there is no
            such tokenizer.
        ValueError: The file is damaged, refers to unexpected code, or its tensors do not fit.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: name a folder that is yet to be made")
    save(read_groupvit_file(file, tokenizer), out, "groupvit", {"file": file.name})


def read_groupvit_file(file: Path, tokenizer: str = TOKENIZER) -> ForeignModel:
    """Read a released GroupViT.

    Args:
        file: Released file.
        tokenizer: Folder or name of the tokenizer.

    Returns:
        The model.

    Raises:
        OSError: The file cannot be read, or there is no such tokenizer.
        ValueError: The file is damaged, refers to unexpected code, or its tensors do not fit.
    """
    released = read_released(file, "groupvit")
    try:
        config = _config(released)
    except KeyError as error:
        raise ValueError(f"{file} is no GroupViT as released; missing: {error.args[0]}") from error
    except (IndexError, ValueError) as error:
        # A tensor has other axes than those that sizes are read from.
        raise ValueError(f"{file} is no GroupViT as released: {error}") from error

    method = config.build()
    method.tower.load_state_dict(renamed(released, method.tower.state_dict()))

    words = Tokenizer.from_source(
        tokenizer, method.tower.config.text_config.max_position_embeddings
    )
    config.check_tokenizer(words.vocabulary_size, words.max_length)
    return ForeignModel(method, config, words, AUTHORS_TEMPLATES, AUTHORS_INFERENCE)


def renamed(released: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename, split and reshape released tensors to those of transformers.

    Args:
        released: Released tensors by name.
        state: State dict of a GroupViTModel.

    Returns:
        Tensors with the names and shapes of `state`; a batch counter that is not released is that
        of `state`.

    Raises:
        ValueError: A tensor is missing, left over or of the wrong shape.
    """
    tensors = {name: tensor for name, tensor in state.items() if name.endswith("batches_tracked")}
    for key, value in released.items():
        tensors |= _named(key, value)

    for kind, names in (
        ("missing", state.keys() - tensors.keys()),
        ("left over", tensors.keys() - state.keys()),
    ):
        if names:
            raise ValueError(
                f"the checkpoint is no GroupViT as released; {kind}: {min(names)} "
                f"and {len(names) - 1} others"
            )

    # Released projections are convolutions of length 1.
    for name, tensor in tensors.items():
        if tensor.numel() != state[name].numel():
            raise ValueError(
                f"the checkpoint is no GroupViT as released; {name} is {tuple(tensor.shape)}, "
                f"not {tuple(state[name].shape)}"
            )
        tensors[name] = tensor.reshape(state[name].shape)

    return tensors


def _named(key: str, value: Tensor) -> dict[str, Tensor]:
    """Tensors of transformers that a released tensor becomes: one, or query, key and value."""
    name = key
    for pattern, place in _NAMES:
        name, found = re.subn(f"^{pattern}", place, name)
        if found:
            break

    if joined := _JOINED.search(name):
        start = name[: joined.start()] + joined[1]
        names = [f"{start}self_attn.{part}_proj.{joined[2]}" for part in "qkv"]
        return dict(zip(names, value.chunk(3), strict=True))

    for pattern, place in _PARTS:
        name = re.sub(pattern, place, name)
    return {name: value}


def _config(released: Mapping[str, Tensor]) -> GroupViTConfig:
    """Settings of the method, with sizes read from the tensors."""
    shape = {key: tuple(value.shape) for key, value in released.items()}
    dim, _, patch_px, _ = shape["img_encoder.patch_embed.proj.weight"]
    side_px = patch_px * isqrt(shape["img_encoder.pos_embed"][-2])
    num_words, width = shape["text_encoder.token_embedding.weight"]
    for channels in (dim, width):
        if channels % _HEAD_CHANNELS:
            raise ValueError(f"{channels} channels are no whole heads of {_HEAD_CHANNELS}")

    stages = [f"img_encoder.layers.{stage}." for stage in range(_NUM_STAGES)]
    depths = [_count(released, f"{stage}blocks.") for stage in stages]
    text = "text_encoder.transformer.resblocks."
    return GroupViTConfig(
        weights=None,
        vision={
            "hidden_size": dim,
            "intermediate_size": shape[f"{stages[0]}blocks.0.mlp.fc1.weight"][0],
            "num_hidden_layers": sum(depths),
            "depths": depths,
            "num_group_tokens": [_length(shape, f"{stage}group_token", 1) for stage in stages],
            "num_output_groups": [
                _length(shape, f"{stage}downsample.mlp_inter.fc2.weight", 0) for stage in stages
            ],
            "num_attention_heads": dim // _HEAD_CHANNELS,
            "image_size": side_px,
            "patch_size": patch_px,
        },
        text={
            "vocab_size": num_words,
            "hidden_size": width,
            "intermediate_size": shape[f"{text}0.mlp.c_fc.weight"][0],
            "num_hidden_layers": _count(released, text),
            "num_attention_heads": width // _HEAD_CHANNELS,
            "max_position_embeddings": shape["text_encoder.positional_embedding"][0],
        },
        projections={
            "projection_dim": shape["img_projector.linear_out.weight"][0],
            "projection_intermediate_dim": shape["img_projector.linear_hidden.0.weight"][0],
        },
        views=ViewConfig(side_px=side_px),
    )


def _count(released: Mapping[str, Tensor], prefix: str) -> int:
    """Number of different layers whose names begin with a prefix and a number."""
    matches = (re.match(rf"{re.escape(prefix)}(\d+)\.", key) for key in released)
    return len({match[1] for match in matches if match})


def _length(shape: Mapping[str, tuple[int, ...]], key: str, axis: int) -> int:
    """Length of an axis of a released tensor; 0 for a stage without it."""
    if key not in shape:
        return 0
    return shape[key][axis]

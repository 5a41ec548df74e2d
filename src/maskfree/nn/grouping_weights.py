"""Names of OVSegmentor's released weights, and loading of pretrained vision transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskfree.nn.configurations import read_configuration
from maskfree.nn.pretrained import make_tower

_BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
_BINDING = {
    "norm_tokens": "norm_tokens",
    "mlp_inter.fc1": "mixer.mlp.fc1",
    "mlp_inter.fc2": "mixer.mlp.fc2",
    "norm_post_tokens": "mixer.norm",
    "norm_x": "norm_patches",
    "pre_assign_attn.attn.q_proj": "cross.attn.q_proj",
    "pre_assign_attn.attn.k_proj": "cross.attn.k_proj",
    "pre_assign_attn.attn.v_proj": "cross.attn.v_proj",
    "pre_assign_attn.attn.proj": "cross.attn.proj",
    "pre_assign_attn.norm2": "cross.norm2",
    "pre_assign_attn.mlp.fc1": "cross.mlp.fc1",
    "pre_assign_attn.mlp.fc2": "cross.mlp.fc2",
    "pre_assign_attn.norm_post": "cross.norm_post",
    "assign.q_proj": "q_proj",
    "assign.k_proj": "k_proj",
    "assign.v_proj": "v_proj",
    "assign.proj": "proj",
    "norm_new_x": "norm_mlp",
    "mlp_channels.fc1": "mlp.fc1",
    "mlp_channels.fc2": "mlp.fc2",
}
_PROJECTION = {"linear_hidden.0": "widen", "linear_hidden.1": "norm", "linear_out": "narrow"}
# Modules in a layer of transformers' ViTModel; query, key and value are joined elsewhere.
_TRANSFORMER = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def official_image_keys(depths: tuple[int, int]) -> dict[str, str]:
    """Map tensor names of the released image encoder to names in `GroupingEncoder`.

    The released models have 64 tokens, cross-attention and a channel MLP. Shapes are the same.

    Args:
        depths: Number of transformer layers before and after binding.

    Returns:
        Our name for every tensor below `img_encoder.` in a released checkpoint.
    """
    modules = {"patch_embed.proj": "stem.tower", "norm": "norm"}
    for official, place in _BINDING.items():
        modules[f"layers.0.downsample.{official}"] = f"binding.{place}"

    for number, (stage, depth) in enumerate(zip(("first", "second"), depths, strict=True)):
        for layer in range(depth):
            modules |= {
                f"layers.{number}.blocks.{layer}.{part}": f"{stage}.{layer}.{part}"
                for part in _BLOCK
            }

    return {"pos_embed": "pos_embed", "layers.0.group_token": "group_token"} | _of_parts(
        modules, ("weight", "bias")
    )


def official_projection_keys() -> dict[str, str]:
    """Map tensor names of a released projector to names in a "batchnorm_mlp" projection.

    The released linear maps are convolutions of length 1: weights have shape (hidden, channels, 1),
    and the last axis must be removed.

    Returns:
        Our name for every tensor below `img_projector.` in a released checkpoint.
    """
    keys = _of_parts(_PROJECTION, ("weight", "bias"))
    return keys | _of_parts(
        {"linear_hidden.1": "norm"}, ("running_mean", "running_var", "num_batches_tracked")
    )


def _of_parts(modules: dict[str, str], parts: tuple[str, ...]) -> dict[str, str]:
    """Extend a map of module names to the names of their tensors."""
    return {
        f"{official}.{part}": f"{place}.{part}"
        for official, place in modules.items()
        for part in parts
    }


def read_vision_transformer(weights: str, encoder: nn.Module, depths: tuple[int, int]) -> None:
    """Load a pretrained ViT of transformers into a grouping encoder.

    The ViT fills the patch embedding, positions, layers and last normalization. The position of the
    class token is left out. The number of heads may differ, as in the released code.

    Args:
        weights: Local folder or Hugging Face name of the ViT.
        encoder: Grouping encoder that is changed in place.
        depths: Number of transformer layers before and after binding.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: The number of layers or the shape of a tensor differs.
    """
    configuration = read_configuration("ViTConfig", weights, {})
    if configuration.num_hidden_layers != sum(depths):
        raise ValueError(
            f"the weights {weights!r} have {configuration.num_hidden_layers} layers, "
            f"not {sum(depths)}"
        )

    tower = make_tower("ViTModel", configuration, weights, add_pooling_layer=False)
    tensors = _renamed(tower.state_dict(), depths)

    # Compare shapes here, to name the weights in the error.
    own = encoder.state_dict()
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            stored, expected = tuple(tensor.shape), tuple(own[name].shape)
            raise ValueError(
                f"the weights {weights!r} do not fit: {name} is {stored} there, not {expected}"
            )

    encoder.load_state_dict(own | tensors)


def _renamed(state: dict[str, Tensor], depths: tuple[int, int]) -> dict[str, Tensor]:
    """Return the tensors of a ViT by the names of `GroupingEncoder`."""
    # The first position is the class token's.
    tensors = {"pos_embed": state["embeddings.position_embeddings"][0, 1:]}
    for part in ("weight", "bias"):
        tensors[f"stem.tower.{part}"] = state[f"embeddings.patch_embeddings.projection.{part}"]
        tensors[f"norm.{part}"] = state[f"layernorm.{part}"]
        for layer in range(sum(depths)):
            published = f"layers.{layer}"
            if layer < depths[0]:
                place = f"first.{layer}"
            else:
                place = f"second.{layer - depths[0]}"

            # One linear map computes query, key and value, in this order.
            joined = [state[f"{published}.attention.{name}_proj.{part}"] for name in "qkv"]
            tensors[f"{place}.attn.qkv.{part}"] = torch.cat(joined)
            for own, name in _TRANSFORMER.items():
                tensors[f"{place}.{own}.{part}"] = state[f"{published}.{name}.{part}"]

    return tensors

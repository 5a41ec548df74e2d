"""A tiny CLIP, and its weights under the names of OpenAI's files."""

import torch
import transformers

from tiny import TINY_CLIP_TEXT, TINY_CLIP_VISION


def clip_model() -> transformers.CLIPModel:
    text = {**TINY_CLIP_TEXT, "eos_token_id": 399, "projection_dim": 18}
    vision = {**TINY_CLIP_VISION, "projection_dim": 18}
    config = transformers.CLIPConfig(projection_dim=18, text_config=text, vision_config=vision)
    return transformers.CLIPModel(config).eval()


def published(model: transformers.CLIPModel) -> dict[str, torch.Tensor]:
    """The weights of MODEL under the names of OpenAI's files, written down here once
    more by hand.
    """
    own = model.state_dict()
    state = {
        "logit_scale": own["logit_scale"],
        "visual.class_embedding": own["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": own["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": own["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": own["visual_projection.weight"].T,
        "token_embedding.weight": own["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": own["text_model.embeddings.position_embedding.weight"],
        "text_projection": own["text_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        state[f"visual.ln_pre.{kind}"] = own[f"vision_model.pre_layrnorm.{kind}"]
        state[f"visual.ln_post.{kind}"] = own[f"vision_model.post_layernorm.{kind}"]
        state[f"ln_final.{kind}"] = own[f"text_model.final_layer_norm.{kind}"]
        for theirs, ours in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
            for layer in (0, 1):
                there, here = f"{theirs}.resblocks.{layer}", f"{ours}.encoder.layers.{layer}"
                joined = [own[f"{here}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
                state[f"{there}.attn.in_proj_{kind}"] = torch.cat(joined)
                state[f"{there}.attn.out_proj.{kind}"] = own[f"{here}.self_attn.out_proj.{kind}"]
                state[f"{there}.ln_1.{kind}"] = own[f"{here}.layer_norm1.{kind}"]
                state[f"{there}.ln_2.{kind}"] = own[f"{here}.layer_norm2.{kind}"]
                state[f"{there}.mlp.c_fc.{kind}"] = own[f"{here}.mlp.fc1.{kind}"]
                state[f"{there}.mlp.c_proj.{kind}"] = own[f"{here}.mlp.fc2.{kind}"]
    return state

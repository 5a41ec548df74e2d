"""Names of OpenAI's and open_clip's files: strict, and the same numbers from
transformers' model.
"""

import json

import pytest
import torch
import transformers
from torch.testing import assert_close

from maskfree.nn.clip_weights import clip_architectures, model_type, read_text_end, renamed_clip
from published_clip import clip_model, published
from tiny import TINY_CLIP_TEXT, TINY_CLIP_VISION

HEADS = (3, 2)


def test_every_tensor_comes_back_in_its_place():
    model = clip_model()
    renamed = renamed_clip(published(model), model.state_dict())
    assert renamed.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(renamed[name], tensor), name


def test_half_precision_and_buffers_of_the_published_files():
    model = clip_model()
    state = {name: tensor.half() for name, tensor in published(model).items()}
    extra = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(32),
        "vocab_size": torch.tensor(400),
    }
    renamed = renamed_clip(state | extra, model.state_dict())
    assert all(tensor.dtype == torch.float32 for tensor in renamed.values())


def test_sizes_are_read_off_the_tensors():
    model = clip_model()
    vision, text = clip_architectures(published(model), "gelu", HEADS)
    for fields, config in ((vision, model.config.vision_config), (text, model.config.text_config)):
        assert fields.pop("hidden_act") == "gelu"
        assert {name: getattr(config, name) for name in fields} == fields


def test_a_head_for_each_64_channels_unless_said():
    state = {
        name: tensor.repeat_interleave(8, -1)
        for name, tensor in published(clip_model()).items()
        if tensor.ndim
    }
    state["logit_scale"] = torch.tensor(1.0)
    state["visual.conv1.weight"] = torch.zeros(192, 3, 8, 8)
    vision, text = clip_architectures(state)
    assert (vision["num_attention_heads"], text["num_attention_heads"]) == (3, 2)


def test_what_is_wrong_is_named():
    model = clip_model()
    state, expected = published(model), model.state_dict()
    lacking = {name: tensor for name, tensor in state.items() if name != "visual.ln_post.bias"}
    with pytest.raises(ValueError, match=r"missing: vision_model.post_layernorm.bias$"):
        renamed_clip(lacking, expected)
    with pytest.raises(ValueError, match=r"left over: visual.odd$"):
        renamed_clip(state | {"visual.odd": torch.zeros(1)}, expected)
    with pytest.raises(ValueError, match=r"misshapen: logit_scale \(2,\), not \(\)$"):
        renamed_clip(state | {"logit_scale": torch.zeros(2)}, expected)
    with pytest.raises(
        ValueError, match=r"no CLIP of OpenAI's or open_clip's kind; missing: .* and \d+ more"
    ):
        clip_architectures(
            {"conv.weight": torch.zeros(1)} | {name: state[name] for name in ("logit_scale",)}
        )
    with pytest.raises(ValueError, match="5 attention heads do not divide 24 channels"):
        clip_architectures(state, heads=(5, 2))


@torch.no_grad()
def test_ends_of_the_text_towers(tmp_path):
    model = clip_model()
    model.save_pretrained(tmp_path / "clip")
    weights, scale = read_text_end(str(tmp_path / "clip"), "clip")
    assert_close(weights["weight"], model.text_projection.weight)
    assert_close(scale, model.logit_scale)
    text = {**TINY_CLIP_TEXT, "projection_size": 24}
    siglip = transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=TINY_CLIP_VISION)
    )
    siglip.logit_scale.fill_(2.5)
    siglip.save_pretrained(tmp_path / "siglip")
    weights, scale = read_text_end(str(tmp_path / "siglip"), "siglip")
    assert_close(weights["bias"], siglip.text_model.head.bias)
    assert_close(scale, torch.tensor(2.5))


def test_kind_of_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert model_type(str(tmp_path)) == "clip"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is no JSON"):
        model_type(str(tmp_path))

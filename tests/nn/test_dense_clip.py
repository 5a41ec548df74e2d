"""Dense features of CLIP's image tower: parity with the published codes, and what the settings
mean.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.nn.clip_weights import renamed_clip
from maskfree.nn.dense_clip import DenseClip
from maskfree.nn.dense_clip_config import (
    CLEARCLIP,
    MASKCLIP,
    NACLIP,
    PRESETS,
    PROXY,
    RADSEG,
    SCLIP,
    TRAINED,
    VALUE_ONLY,
    DenseClipConfig,
    LastBlock,
)
from maskfree.nn.dense_patches import PatchAttention
from maskfree.nn.self_attention import gaussian_windows, proxy_attention

TOLERANCE = {"atol": 2e-4, "rtol": 1e-4}
SIZES = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
}
CLIP = DenseClipConfig(architecture=SIZES | {"projection_dim": 18})
SIGLIP = DenseClipConfig("siglip", architecture=SIZES, last_block=TRAINED)


def official(given, width, layers, dim, **changes) -> DenseClip:
    """The fixture's tower under our names; its photos are normalized already."""
    config = DenseClipConfig(
        architecture={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "image_size": 48,
            "patch_size": 8,
            "projection_dim": dim,
        }
        | changes.pop("architecture", {}),
        **changes,
    )
    tower = config.build()
    weights = {key[2:]: value for key, value in given.items() if key.startswith("w.visual.")}
    tower.tower.load_state_dict(renamed_clip(weights, tower.tower.state_dict()))
    tower.mean.zero_()
    tower.deviation.fill_(1)
    return tower.eval()


def tokens(maps):
    return maps.flatten(2).mT


@pytest.mark.parametrize("case", ["square", "wide"])
@torch.no_grad()
def test_maskclip_equals_its_code(case, fixture_tensors):
    given = fixture_tensors("maskclip_dense")
    published = {"architecture": {"hidden_act": "gelu", "layer_norm_eps": 1e-6}}
    tower = official(given, 64, 3, 24, **published)
    image = given[f"in.{case}.image"]
    dense = tower.read(image)
    assert_close(dense.features, given[f"out.{case}.official.dense_v"], **TOLERANCE)
    assert_close(
        tower.project(dense.features), given[f"out.{case}.official.projected"], **TOLERANCE
    )
    # There, keys go through the output projection too.
    keys = tower.tower.vision_model.encoder.layers[-1].self_attn.out_proj(tokens(dense.keys))
    assert_close(keys, given[f"mid.{case}.official.k"], **TOLERANCE)
    trained = official(given, 64, 3, 24, last_block=TRAINED, **published)
    assert_close(trained.read(image).features, given[f"out.{case}.official.dense_x"], **TOLERANCE)


@pytest.mark.parametrize("case", ["square", "wide"])
@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("value_only", VALUE_ONLY),
        ("value_residual_ffn", MASKCLIP),
        ("value_residual_noffn", LastBlock("value", feed_forward=False)),
        ("vanilla_tokens", TRAINED),
    ],
)
@torch.no_grad()
def test_value_paths_equal_later_codes(case, activation, name, block, fixture_tensors):
    given = fixture_tensors("maskclip_dense")
    act = {"hidden_act": activation.replace("quickgelu", "quick_gelu")}
    tower = official(given, 64, 3, 24, architecture=act, positions="factor", last_block=block)
    embeddings = tokens(tower(given[f"in.{case}.image"]))
    assert_close(embeddings, given[f"out.{case}.{activation}.{name}"], **TOLERANCE)


WINDOWED = replace(NACLIP, residual=True, feed_forward=True)


@pytest.mark.parametrize("case", ["square", "square_resized", "nonsquare"])
@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("sclip.csa", SCLIP),
        ("sclip.vanilla", TRAINED),
        ("naclip.reduced_naclip", NACLIP),
        ("naclip.reduced_nonly", replace(NACLIP, attention="window")),
        ("naclip.reduced_kk", replace(NACLIP, neighbors=None)),
        ("naclip.reduced_vanilla", replace(TRAINED, residual=False, feed_forward=False)),
        ("naclip.vanilla_naclip", WINDOWED),
        ("naclip.vanilla_kk", replace(WINDOWED, neighbors=None)),
        ("naclip.vanilla_csa", SCLIP),
        ("clearclip.ClearCLIP_no_residual", CLEARCLIP),
        ("clearclip.SCLIP_no_residual", replace(SCLIP, residual=False, feed_forward=False)),
        ("clearclip.MaskCLIP_no_residual", VALUE_ONLY),
        ("clearclip.vanilla_no_residual", replace(TRAINED, residual=False, feed_forward=False)),
        ("clearclip.ClearCLIP_residual", replace(CLEARCLIP, residual=True, feed_forward=True)),
    ],
)
@torch.no_grad()
def test_attention_equals_the_published_codes(case, name, block, fixture_tensors):
    given = fixture_tensors("clip_attention_variants")
    if f"out.{case}.{name}" not in given:
        pytest.skip("the published code takes one photo at a time here")
    tower = official(given, 64, 2, 20, positions="factor", last_block=block)
    assert_close(tokens(tower(given[f"in.{case}.image"])), given[f"out.{case}.{name}"], **TOLERANCE)


@torch.no_grad()
def test_recursive_attention_reads_twice_head_by_head():
    tower = replace(CLIP, last_block=RADSEG).build().eval()
    image = torch.rand(1, 3, 24, 40)
    vision, attention = tower.tower.vision_model, tower.tower.vision_model.encoder.layers[-1]
    # Tokens that differ, and an attention that tells them apart.
    vision.embeddings.position_embedding.weight.normal_()
    for part in (attention.self_attn.q_proj, attention.self_attn.k_proj):
        part.weight.normal_()
    hidden = vision(
        (image - tower.mean) / tower.deviation,
        interpolate_pos_encoding=True,
        output_hidden_states=True,
    ).hidden_states[-2]
    first = attention.self_attn(attention.layer_norm1(hidden))[0][0]
    values = attention.self_attn.v_proj(attention.layer_norm1(hidden))[0]

    again = torch.zeros_like(values)
    masked = 0
    for head in range(3):
        channels = slice(8 * head, 8 * head + 8)
        for token in range(16):
            cosines = torch.stack(
                [F.cosine_similarity(first[token, channels], o[channels], dim=0) for o in first]
            )
            near = cosines >= 0
            masked += int((~near).sum())
            weights = (10 * cosines[near]).softmax(0)
            again[token, channels] = weights @ values[near][:, channels]
    after = hidden + attention.self_attn.out_proj(again)
    after = after + attention.mlp(attention.layer_norm2(after))
    expected = vision.post_layernorm(after)[:, 1:]
    assert_close(tokens(tower.read(image).features), expected, atol=1e-4, rtol=1e-4)
    assert masked > 0


@pytest.mark.parametrize(
    ("case", "number", "shift", "scale"),
    [("square", 0, 1.2, 3.0), ("square", 1, 1.0, 2.0)],
)
@torch.no_grad()
def test_proxy_attention_equals_proxyclip(case, number, shift, scale, fixture_tensors):
    given = fixture_tensors("clip_attention_variants")
    tower = official(given, 64, 2, 20, positions="factor", last_block=PROXY)
    features = given[f"in.{case}.ex_feats{number}"]
    proxy = PatchAttention(proxy_attention(features, shift, scale), features.shape[2:])
    embeddings = tower.project(tower.read(given[f"in.{case}.image"], proxy).features)
    assert_close(
        tokens(embeddings),
        given[f"out.{case}.proxyclip.ex{number}_beta{shift}_gamma{scale}"],
        **TOLERANCE,
    )


@torch.no_grad()
def test_proxy_of_a_photo_does_not_depend_on_the_batch(fixture_tensors):
    given = fixture_tensors("clip_attention_variants")
    features = given["in.square_resized.ex_feats0"]
    together = proxy_attention(features, 1.2, 3.0)
    assert_close(together, torch.cat([proxy_attention(each[None], 1.2, 3.0) for each in features]))
    alike = proxy_attention(torch.ones(1, 4, 2, 3))
    assert_close(alike, torch.eye(6)[None])


@torch.no_grad()
def test_proxy_of_a_wide_photo_keeps_its_rows():
    tower = replace(CLIP, last_block=PROXY).build().eval()
    image = torch.rand(1, 3, 24, 40)
    finer = tower.read(image, PatchAttention(torch.eye(60)[None], (6, 10)))
    assert finer.features.shape == (1, 24, 6, 10) and finer.keys.shape == (1, 24, 3, 5)
    coarse = replace(CLIP, last_block=VALUE_ONLY).build().eval()
    coarse.load_state_dict(tower.state_dict())
    own = PatchAttention(torch.eye(15)[None], (3, 5))
    assert_close(tower.read(image, own).features, coarse.read(image).features)
    with pytest.raises(ValueError, match="attention 'proxy' needs another encoder"):
        tower.read(image)


@pytest.mark.parametrize("block", PRESETS.values(), ids=PRESETS)
@torch.no_grad()
def test_photos_of_a_batch_do_not_see_each_other(block):
    tower = replace(CLIP, last_block=block).build().eval()
    images = torch.rand(3, 3, 24, 40)
    assert_close(tower(images)[1:2], tower(images[1:2]), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_presets_differ_in_the_last_block_only():
    towers = {
        name: replace(CLIP, last_block=block).build().eval() for name, block in PRESETS.items()
    }
    image = torch.rand(1, 3, 24, 40)
    for tower in towers.values():
        tower.load_state_dict(towers["trained"].state_dict())
    seen = {name: tower.read(image) for name, tower in towers.items()}
    assert all(torch.equal(each.keys, seen["trained"].keys) for each in seen.values())
    means = [each.features.double().square().sum().item() for each in seen.values()]
    assert len({round(mean, 6) for mean in means}) == len(PRESETS)


@torch.no_grad()
def test_trained_block_is_transformers_own():
    tower = replace(CLIP, last_block=TRAINED).build().eval()
    image = torch.rand(2, 3, 32, 32)
    hidden = tower.tower.vision_model((image - tower.mean) / tower.deviation).last_hidden_state[
        :, 1:
    ]
    assert_close(
        tokens(tower.read(image).features), tower.tower.vision_model.post_layernorm(hidden)
    )
    wide = torch.rand(1, 3, 24, 40)
    normalized = (wide - tower.mean) / tower.deviation
    hidden = tower.tower.vision_model(normalized, interpolate_pos_encoding=True).last_hidden_state[
        :, 1:
    ]
    assert_close(tokens(tower.read(wide).features), tower.tower.vision_model.post_layernorm(hidden))


@torch.no_grad()
def test_siglip_of_one_patch_is_the_whole_photo():
    tower = SIGLIP.build().eval()
    tower.tower.embeddings.position_embedding.weight[:] = (
        tower.tower.embeddings.position_embedding.weight[:1].clone()
    )
    patch = torch.rand(1, 3, 8, 8)
    normalized = (patch - tower.mean) / tower.deviation
    pooled = tower.tower(normalized, interpolate_pos_encoding=True).pooler_output
    assert_close(tower(patch)[..., 0, 0], pooled, atol=1e-5, rtol=1e-4)
    assert tower(torch.rand(2, 3, 24, 40)).shape == (2, 24, 3, 5)


def test_gaussian_windows():
    windows = gaussian_windows((2, 3), 5.0)
    assert_close(windows.diagonal(), torch.ones(6))
    assert_close(windows, windows.T)
    assert_close(windows[0, 5], torch.tensor(-5 / 50).exp())


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="neighbors is 0"):
        LastBlock("kk", neighbors=0.0)
    with pytest.raises(ValueError, match="'window' needs the width"):
        LastBlock("window")
    with pytest.raises(ValueError, match="attention 'proxy' replaces the block"):
        LastBlock("proxy")
    with pytest.raises(ValueError, match="recursion repeats an attention, and attention is 'v"):
        LastBlock("value", recursion=10.0)
    with pytest.raises(ValueError, match="reads from the patch itself"):
        LastBlock("value", neighbors=5.0)
    with pytest.raises(ValueError, match=r"30x40 px does not divide into patches of 8 px"):
        CLIP.build()(torch.rand(1, 3, 30, 40))


def test_published_form_is_a_setting():
    published = DenseClipConfig(
        architecture=CLIP.architecture | {"hidden_act": "gelu", "layer_norm_eps": 1e-6},
        statistics="imagenet",
    )
    assert published.build().mean[0, 0, 0, 0] == pytest.approx(0.485)
    own = CLIP.build()
    assert own.mean[0, 0, 0, 0] == pytest.approx(0.48145466)
    last = own.tower.vision_model.encoder.layers[-1]
    assert own.tower.config.hidden_act == "quick_gelu" and last.layer_norm1.eps == 1e-5

"""The grouping encoder: parity with the released code, any sizes, and weights of vision
transformers.
"""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.nn.classifier_mixture import ClassifierMixture
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.nn.grouping_config import GroupingEncoderConfig
from maskfree.nn.grouping_weights import (
    official_image_keys,
    official_projection_keys,
    read_vision_transformer,
)
from maskfree.nn.projection_config import ProjectionConfig
from shared_folder import SHARED
from tiny import TINY_IMAGE

PAPER = GroupingEncoderConfig(
    patch_px=8, side_px=24, dim=12, num_heads=3, depths=(2, 1), num_groups=4, num_tokens=4
)
RELEASED = replace(PAPER, num_tokens=7, form="released")
LIGHT = replace(PAPER, form="light")
STEM = replace(PAPER, stem=TINY_IMAGE, side_px=48)
FORMS = {"paper": PAPER, "released": RELEASED, "light": LIGHT, "stem": STEM}
forms = pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)
CASES = [
    (path.stem, case["name"])
    for path in sorted((SHARED / "fixtures").glob("ovsegmentor_visual*.json"))
    for case in json.loads(path.read_text())["hyper_parameters"]["cases"]
]


def official(fixture, tensors):
    """The released encoder and projector of a fixture, in evaluation."""
    settings = json.loads((SHARED / "fixtures" / f"{fixture}.json").read_text())["hyper_parameters"]
    encoder = GroupingEncoderConfig(
        patch_px=settings["patch_size"],
        side_px=settings["img_size"],
        dim=settings["embed_dim"],
        num_heads=settings["num_heads"][0],
        depths=tuple(settings["depths"]),
        num_tokens=settings["num_group_tokens"][0],
        num_groups=settings["num_output_groups"][0],
        form="released",
    ).build()
    prefix = "w.img_encoder."
    theirs = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    keys = official_image_keys(tuple(settings["depths"]))
    assert theirs.keys() == keys.keys()
    encoder.load_state_dict({keys[name]: value for name, value in theirs.items()})
    encoder.stem.mean.zero_()  # their images are normalized already
    encoder.stem.deviation.fill_(1)

    prefix = "w.img_projector."
    theirs = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    keys = official_projection_keys()
    assert keys.keys() - theirs.keys() == {
        "linear_hidden.1.num_batches_tracked"
    }  # the fixture leaves it out
    hidden = len(theirs["linear_hidden.0.weight"])
    projection = ProjectionConfig("batchnorm_mlp", hidden=hidden).build_for_vectors(
        settings["embed_dim"], settings["output_dim"]
    )
    state = {
        keys[name]: value.squeeze(-1) if value.ndim == 3 else value
        for name, value in theirs.items()
    }
    projection.load_state_dict(projection.state_dict() | state)
    return encoder.eval(), projection.eval()


def observed(encoder, images):
    """What the parts of an encoder give for IMAGES, by the fixture's names, and the
    whole's result.
    """
    parts = {
        "patch_tokens": encoder.stem,
        "stage0_block0": encoder.first[0],
        "stage0_lastblock": encoder.first[-1],
        "queries_after_mixer": encoder.binding.mixer,
        "queries_after_preassign": encoder.binding.cross,
        "assign_out": encoder.binding.proj,
        "grouped_tokens": encoder.binding,
        "stage1_block0": encoder.second[0],
        "stage1_lastblock": encoder.second[-1],
        "group_tokens_final": encoder.norm,
    }
    seen = {}
    for name, part in parts.items():
        part.register_forward_hook(
            lambda module, given, result, name=name: seen.update({name: result})
        )
    grouped = encoder(images)
    seen["patch_tokens"] = seen["patch_tokens"].flatten(2).mT
    seen["grouped_tokens"] = seen["grouped_tokens"][0]
    seen["pos_embed"] = encoder.positions(grouped.patches)[None]
    return seen, grouped


@torch.no_grad()
@pytest.mark.parametrize(("fixture", "case"), CASES, ids=[case for _, case in CASES])
def test_the_released_form_equals_the_released_code(fixture, case, fixture_tensors):
    tensors = fixture_tensors(fixture)
    encoder, projection = official(fixture, tensors)
    if f"in.{case}.image" in tensors:
        images = tensors[f"in.{case}.image"]
    else:
        patch, coarse = (tensors[f"in.{case}.image_{part}"] for part in ("patch", "coarse"))
        large = coarse.repeat_interleave(patch.shape[2], 2).repeat_interleave(patch.shape[3], 3)
        images = large * patch.tile(1, 1, *coarse.shape[2:])
    seen, grouped = observed(encoder, images)
    overall = grouped.groups.mean(1)
    ours = {f"mid.{case}.{name}": value for name, value in seen.items()} | {
        f"out.{case}.attn_hard": grouped.assignment.hard[:, None],
        f"out.{case}.attn_soft": grouped.assignment.soft[:, None],
        f"out.{case}.attn_q": grouped.assignment.queries[:, None],
        f"out.{case}.attn_k": grouped.assignment.keys[:, None],
        f"out.{case}.image_feat_before_proj": grouped.groups,
        f"out.{case}.image_x_before_proj": overall,
        f"out.{case}.image_feat": projection(grouped.groups),
        f"out.{case}.image_x": projection(overall),
    }
    wanted = {
        name: value
        for name, value in tensors.items()
        if name.startswith((f"mid.{case}.", f"out.{case}."))
    }
    assert wanted
    for name, value in wanted.items():
        assert_close(
            ours[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    hard = wanted[f"out.{case}.attn_hard"]
    assert torch.equal(ours[f"out.{case}.attn_hard"].argmax(2), hard.argmax(2))


@forms
def test_every_weight_learns(config):
    encoder = config.build().train()
    grouped = encoder(torch.rand(5, 3, 48, 48))
    (grouped.groups * torch.randn_like(grouped.groups)).sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        if not name.endswith("k_proj.bias") and not name.startswith(
            "stem."
        ):  # the softmax does not see a key's bias
            assert weight.grad.any(), name


@forms
def test_images_of_any_size_are_grouped(config):
    encoder = config.build().eval()
    assert (encoder.channels, encoder.num_groups) == (12, 4)
    for rows, columns in [(3, 3), (2, 5), (5, 2)]:
        grouped = encoder(torch.rand(2, 3, rows * encoder.patch_size, columns * encoder.patch_size))
        assert grouped.groups.shape == (2, 4, 12)
        assert grouped.patches == (rows, columns)
        assert (
            grouped.assignment.soft.shape == grouped.assignment.hard.shape == (2, 4, rows * columns)
        )
        assert grouped.assignment.queries.shape == (2, 4, 12)
        assert grouped.assignment.keys.shape == (2, rows * columns, 12)


def test_the_trained_grid_keeps_its_positions_and_others_are_resized():
    encoder = PAPER.build()
    with torch.no_grad():
        encoder.pos_embed[:] = torch.arange(3.0).repeat(3)[:, None]  # grows from left to right
    assert encoder.positions((3, 3)) is encoder.pos_embed
    resized = encoder.positions((2, 6)).unflatten(0, (2, 6))
    assert resized.shape == (2, 6, 12)
    assert_close(resized[0], resized[1])
    assert (resized[0, 1:, 0] > resized[0, :-1, 0]).all()


def test_patches_reach_the_second_stage_only_where_they_are_kept():
    lengths = {}
    for name, config in {"paper": PAPER, "light": LIGHT, "released": RELEASED}.items():
        encoder = config.build().eval()
        encoder.second[0].register_forward_hook(
            lambda module, given, result, name=name: lengths.update({name: result.shape[1]})
        )
        encoder(torch.rand(2, 3, 16, 40))
    assert lengths == {"paper": 2 * 5 + 4, "light": 4, "released": 4}


@forms
@pytest.mark.parametrize("depth", [1, 3])
def test_groups_do_not_depend_on_whether_features_are_computed(config, depth):
    encoder = replace(config, depths=(2, depth), drop_path=0.4).build().train()
    images = torch.rand(6, 3, 48, 96)
    found = []
    for with_features in (True, False):
        torch.manual_seed(1)
        encoder.zero_grad()
        grouped = encoder(images, with_features=with_features)
        (grouped.groups * torch.linspace(-1, 1, 12)).sum().backward()
        grads = [weight.grad for weight in encoder.parameters()]
        found.append([grouped.groups, grouped.assignment.hard, *grads])
    assert grouped.features is None
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def sure_of_similarity(by_similarity):
    """An encoder whose first stage leaves tokens as they are, and images of patches that are like
    one token each.
    """
    encoder = PAPER.build().eval()
    if by_similarity:
        encoder.binding.start_by_similarity()
    encoder.first = torch.nn.Sequential()
    drawn = torch.randint(4, (2, 15))
    with torch.no_grad():
        encoder.group_token.normal_()
        encoder.pos_embed.zero_()
    likes = encoder.group_token[0, drawn] + 0.1 * torch.randn(2, 15, 12)
    encoder.stem.forward = lambda images: likes.mT.unflatten(2, (3, 5))
    return encoder, drawn


@torch.no_grad()
def test_patches_go_to_the_token_that_they_are_like_before_anything_is_learned():
    encoder, drawn = sure_of_similarity(True)
    assignment = encoder(torch.rand(2, 3, 24, 40)).assignment
    assert torch.equal(assignment.hard.argmax(1), drawn)
    encoder, drawn = sure_of_similarity(False)
    assert not torch.equal(encoder(torch.rand(2, 3, 24, 40)).assignment.hard.argmax(1), drawn)


@torch.no_grad()
def test_features_of_a_stem_are_projected_and_normalized_before_their_positions():
    encoder = STEM.build().eval()
    assert isinstance(encoder.widen, ClassifierMixture)
    seen, images = [], torch.rand(2, 3, 48, 80)
    encoder.first.register_forward_pre_hook(lambda module, given: seen.append(given[0][:, :15]))
    encoder(images)
    features = encoder.widen(encoder.stem(images)).flatten(2).mT
    expected = F.layer_norm(features, (12,)) + encoder.positions((3, 5))
    assert_close(seen[0], expected, atol=1e-5, rtol=1e-4)
    STEM.without_pretrained().build().load_state_dict(encoder.state_dict())


def test_a_stem_lets_the_binding_start_by_similarity():
    binding = STEM.build().binding
    assert_close(binding.q_proj.weight, 4 * torch.eye(12))
    assert not torch.allclose(PAPER.build().binding.q_proj.weight, 4 * torch.eye(12))


def test_later_layers_are_skipped_more_often():
    encoder = replace(PAPER, depths=(2, 3), drop_path=0.2).build()
    shares = [block.drop_path.share for stage in (encoder.first, encoder.second) for block in stage]
    assert_close(torch.tensor(shares), torch.tensor([0.0, 0.05, 0.1, 0.15, 0.2]))


def vision_transformer(folder, **changes):
    settings = {
        "hidden_size": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 48,
    }
    settings |= {"image_size": 24, "patch_size": 8, "layer_norm_eps": 1e-5}
    tower = transformers.ViTModel(
        transformers.ViTConfig(**(settings | changes)), add_pooling_layer=False
    ).eval()
    for weight in tower.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    tower.save_pretrained(folder)
    return tower


@torch.no_grad()
def test_layers_of_a_vision_transformer_compute_what_they_did(tmp_path):
    tower = vision_transformer(tmp_path)
    encoder = replace(PAPER, weights=str(tmp_path)).build().eval()
    images = torch.rand(2, 3, 24, 24)
    normalized = (images - encoder.stem.mean) / encoder.stem.deviation
    theirs = tower.embeddings(normalized)[:, 1:]
    ours = encoder.stem(images).flatten(2).mT + encoder.positions((3, 3))
    assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    for block, layer in zip([*encoder.first, *encoder.second], tower.layers, strict=True):
        ours, theirs = block(ours), layer(theirs)
    assert_close(encoder.norm(ours), tower.layernorm(theirs), atol=1e-4, rtol=1e-4)


def test_a_vision_transformer_fills_what_the_released_code_fills(fixture_tensors, tmp_path):
    tensors = fixture_tensors("ovsegmentor_dino_init")
    given = {
        name.removeprefix("in."): value for name, value in tensors.items() if name.startswith("in.")
    }
    path = SHARED / "fixtures" / "ovsegmentor_dino_init.json"
    sizes = json.loads(path.read_text())["hyper_parameters"]
    dim, depths = sizes["embed_dim"], tuple(sizes["depths"])
    patch_px, side_px = sizes["patch_size"], sizes["img_size"]
    changes = {
        "hidden_size": dim,
        "num_hidden_layers": sum(depths),
        "num_attention_heads": 2,
        "intermediate_size": len(given["blocks.0.mlp.fc1.weight"]),
    }
    tower = vision_transformer(tmp_path, **changes, image_size=side_px, patch_size=patch_px)
    tower.load_state_dict(published(given))
    tower.save_pretrained(tmp_path)
    config = replace(
        RELEASED,
        patch_px=patch_px,
        side_px=side_px,
        dim=dim,
        num_heads=sizes["num_heads"][0],
        depths=depths,
        num_tokens=64,
    )
    torch.manual_seed(1)
    random = config.build().state_dict()
    torch.manual_seed(1)
    filled = replace(config, weights=str(tmp_path)).build().state_dict()
    for theirs, name in official_image_keys(depths).items():
        wanted = tensors.get(f"out.{theirs}", random[name])
        assert torch.equal(filled[name], wanted), name


def published(state):
    """The names that transformers has for the tensors of DINO's own code."""
    renamed = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
    }
    for part in ("weight", "bias"):
        renamed[f"embeddings.patch_embeddings.projection.{part}"] = state[
            f"patch_embed.proj.{part}"
        ]
        renamed[f"layernorm.{part}"] = state[f"norm.{part}"]
        for layer in range(sum(name.endswith("norm1.weight") for name in state)):
            theirs, ours = f"blocks.{layer}", f"layers.{layer}"
            for name, value in zip("qkv", state[f"{theirs}.attn.qkv.{part}"].chunk(3), strict=True):
                renamed[f"{ours}.attention.{name}_proj.{part}"] = value
            renamed[f"{ours}.attention.o_proj.{part}"] = state[f"{theirs}.attn.proj.{part}"]
            renamed[f"{ours}.layernorm_before.{part}"] = state[f"{theirs}.norm1.{part}"]
            renamed[f"{ours}.layernorm_after.{part}"] = state[f"{theirs}.norm2.{part}"]
            renamed[f"{ours}.mlp.fc1.{part}"] = state[f"{theirs}.mlp.fc1.{part}"]
            renamed[f"{ours}.mlp.fc2.{part}"] = state[f"{theirs}.mlp.fc2.{part}"]
    return renamed


def test_weights_that_do_not_fit_are_refused(tmp_path):
    vision_transformer(tmp_path, intermediate_size=40)
    with pytest.raises(
        ValueError, match=r"do not fit: first.0.mlp.fc1.weight is \(40, 12\) there, not \(48, 12\)$"
    ):
        replace(PAPER, weights=str(tmp_path)).build()
    with pytest.raises(ValueError, match=r"have 3 layers, not 4$"):
        read_vision_transformer(str(tmp_path), PAPER.build(), (2, 2))
    with pytest.raises(FileNotFoundError, match="nothing' is no folder"):
        replace(PAPER, weights=str(tmp_path / "nothing")).build()


def test_without_pretrained_is_the_same_network(tmp_path):
    vision_transformer(tmp_path)
    stem = ImageEncoderConfig(
        family=TINY_IMAGE.family, architecture=TINY_IMAGE.architecture, output_stride=16
    )
    for config in (replace(PAPER, weights=str(tmp_path)), replace(STEM, stem=stem)):
        plain = config.without_pretrained()
        assert plain.weights is None
        plain.build().load_state_dict(config.build().state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "num_heads 5 does not divide the 12 dimensions"),
        ({"side_px": 20}, "side_px 20 does not divide into patches of 8 px"),
        ({"num_groups": 0}, "num_groups is 0"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"stem": TINY_IMAGE, "weights": "dino"}, "weights 'dino' come with a patch embedding"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(PAPER, **changes).build()


def test_an_image_must_divide_into_patches():
    with pytest.raises(ValueError, match="24x20 px does not divide into patches of 8 px"):
        PAPER.build()(torch.rand(1, 3, 24, 20))

"""GroupViT: parity with the authors' code, and what its parts mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.config import ViewConfig
from maskfree.data.sample import Source
from maskfree.hub import checkpoint, loading
from maskfree.hub.convert.groupvit import renamed
from maskfree.methods.groupvit.batch import GroupViTBatch
from maskfree.methods.groupvit.config import GroupViTConfig
from maskfree.methods.groupvit.model import GroupViT
from maskfree.methods.groupvit.transform import GroupViTTransform
from maskfree.text.nouns import nouns
from maskfree.text.templates import TEMPLATES
from maskfree.types import Tokens
from published_scores import check_scores
from shared_folder import SHARED
from tiny import CAPTIONS, tiny_groupvit_config

FOLDER = SHARED / "fixtures"
HERE = pytest.mark.skipif(
    not (FOLDER / "groupvit_visual.json").exists(), reason="../shared/fixtures is not here"
)


def described(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


def original(name: str) -> tuple[GroupViT, dict[str, torch.Tensor]]:
    """The method with the weights of a fixture of the authors' code, and the fixture's other
    tensors.
    """
    about, tensors = described(name), load_file(FOLDER / f"{name}.safetensors")
    made = about["hyper_parameters"]
    method = GroupViTConfig(
        weights=None,
        vision={
            "hidden_size": made["embed_dim"],
            "intermediate_size": 4 * made["embed_dim"],
            "num_hidden_layers": sum(made["depths"]),
            "depths": made["depths"],
            "num_group_tokens": made["num_group_tokens"],
            "num_output_groups": [*made["num_output_groups"], 0],
            "num_attention_heads": made["num_heads"][0],
            "image_size": made["img_size"],
            "patch_size": made["patch_size"],
        },
        text={
            "vocab_size": made["vocab_size"],
            "hidden_size": made["text_width"],
            "intermediate_size": 4 * made["text_width"],
            "num_hidden_layers": made["text_layers"],
            "num_attention_heads": made["text_width"] // 64,
            "max_position_embeddings": made["context_length"],
            "bos_token_id": 0,
            "eos_token_id": 1,  # the parity shows that it is not read
        },
        projections={"projection_dim": made["output_dim"]},
        views=ViewConfig(side_px=made["img_size"]),
    ).build()
    state = method.tower.state_dict()
    filled = set()
    for official, ours in about["hf_key_map"].items():
        if f"w.{official}" not in tensors:  # a counter of batches
            continue
        parts = tensors[f"w.{official}"].chunk(len(ours))
        for key, part in zip(ours, parts, strict=True):
            state[key].copy_(part.view(state[key].shape))
            filled.add(key)
    part = "text_" if "text" in name else "vis"
    own = {key for key in state if key.startswith(part) and "num_batches" not in key}
    assert filled == own
    return method.eval(), tensors


@HERE
@pytest.mark.parametrize("name", ["groupvit_visual", "groupvit_text"])
def test_released_names_become_those_of_transformers(name: str):
    about, tensors = described(name), load_file(FOLDER / f"{name}.safetensors")
    released, expected = {}, {}
    for official, ours in about["hf_key_map"].items():
        if f"w.{official}" not in tensors:  # a counter of batches
            continue
        value = tensors[f"w.{official}"]
        released[official] = value
        for key, part in zip(ours, value.chunk(len(ours)), strict=True):
            # The released projections are convolutions of length 1.
            if "projection." in key and part.ndim == 3:
                part = part.squeeze(-1)
            expected[key] = part

    read = renamed(released, expected)
    assert read.keys() == expected.keys() and len(read) > 20
    for key, value in expected.items():
        assert torch.equal(read[key], value), key


def as_photo(method: GroupViT, normalized: torch.Tensor) -> torch.Tensor:
    return normalized * method.deviation + method.mean


@HERE
@pytest.mark.parametrize("case", ["square", "wide"])
@torch.no_grad()
def test_groups_equal_the_authors_code(case: str):
    method, tensors = original("groupvit_visual")
    images = tensors[f"in.{case}.image"]
    patches = (images.shape[2] // 4, images.shape[3] // 4)
    groups = method.group(as_photo(method, images))
    wanted = {
        key: tensors[f"out.{case}.{key}"]
        for key in ("attn_soft0", "attn_soft1", "image_feat", "image_x")
    }
    assignment = (wanted["attn_soft1"] @ wanted["attn_soft0"])[:, 0].unflatten(2, patches)
    assert groups.patches == patches
    assert_close(groups.assignment, assignment, atol=1e-4, rtol=1e-4)
    assert_close(groups.embeddings, F.normalize(wanted["image_feat"], dim=-1), atol=1e-4, rtol=1e-4)
    assert_close(groups.overall, F.normalize(wanted["image_x"], dim=-1), atol=1e-4, rtol=1e-4)


@HERE
@torch.no_grad()
def test_texts_equal_the_authors_code():
    method, tensors = original("groupvit_text")
    ids = tensors["in.prompts.tokens"]
    tokens = Tokens(ids, torch.arange(ids.shape[1]) <= ids.argmax(1, keepdim=True))
    assert_close(
        method.encode_text(tokens),
        F.normalize(tensors["out.prompts.text_x"], dim=-1),
        atol=1e-4,
        rtol=1e-4,
    )


@HERE
@pytest.mark.parametrize("number", [0, 1])
def test_scores_and_labels_equal_the_authors_code(number: int):
    case = described("groupvit_segmentation")["hyper_parameters"]["cases"][number]
    tensors = load_file(FOLDER / "groupvit_segmentation.safetensors")
    check_scores(case, tensors, lambda given: (given["attn_soft1"] @ given["attn_soft0"])[:, 0])


@torch.no_grad()
def test_patches_share_themselves_among_groups():
    method = tiny_groupvit_config().build().eval()
    groups = method.group(torch.rand(2, 3, 48, 80))
    assert groups.assignment.shape == (2, 4, 3, 5) and (groups.assignment > 0).all()
    assert_close(groups.assignment.sum(1), torch.ones(2, 3, 5))
    assert_close(groups.embeddings.norm(dim=-1), torch.ones(2, 4))
    assert_close(groups.overall.norm(dim=-1), torch.ones(2))


def test_captions_are_learned(tiny_tokenizer):
    method = tiny_groupvit_config().build()
    images = torch.rand(5, 3, 1, 1).expand(5, 3, 64, 64).contiguous()
    batch = GroupViTBatch(images, tiny_tokenizer(CAPTIONS[:5]))
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    first = method(batch).total
    for step in range(30):
        loss = method(batch).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step, 30)
    assert loss < first / 3


def test_temperature_is_bounded(tiny_tokenizer):
    method = tiny_groupvit_config().build()
    with torch.no_grad():
        method.tower.logit_scale.fill_(9.0)
    assert method.logit_scale == pytest.approx(100)
    method.after_step(0, 1)
    assert method.tower.logit_scale.item() == pytest.approx(4.60517)


def test_saved_network_comes_back(tmp_path: Path):
    method = tiny_groupvit_config().build().eval()
    method.tower.save_pretrained(tmp_path)
    config = GroupViTConfig(weights=str(tmp_path), views=ViewConfig(side_px=64))
    images = torch.rand(1, 3, 32, 48)
    assert_close(config.build().eval().group(images).embeddings, method.group(images).embeddings)
    plain = config.without_pretrained()
    assert plain.weights is None and plain.vision["assign_mlp_ratio"] == [0.5, 4.0]
    assert {name: v.shape for name, v in plain.build().state_dict().items()} == {
        name: v.shape for name, v in method.state_dict().items()
    }
    assert config.tokenizer_source() == str(tmp_path)


def test_checkpoint_needs_nothing_else(tmp_path: Path, tiny_tokenizer, photo):
    config = tiny_groupvit_config()
    method = config.build().eval()
    checkpoint.save(
        tmp_path,
        method,
        config.for_inference(),
        tiny_tokenizer,
        {"name": "gv", "templates": ["a {}"]},
    )
    segmenter = loading.load(tmp_path)
    images = torch.rand(1, 3, 32, 48)
    assert_close(segmenter.method.group(images).assignment, method.group(images).assignment)
    assert segmenter.with_words(["dog", "cat"])(photo((50, 30))).labels.shape == (30, 50)


def test_bad_input(tiny_tokenizer, tmp_path: Path):
    method = tiny_groupvit_config().build()
    with pytest.raises(ValueError, match="40x64 px does not divide into patches of 16 px"):
        method.group(torch.rand(1, 3, 40, 64))
    with pytest.raises(ValueError, match="view of 60 px does not divide"):
        tiny_groupvit_config(views=ViewConfig(side_px=60)).build()
    with pytest.raises(ValueError, match="GroupViTVisionConfig has no field depth"):
        tiny_groupvit_config(vision={"depth": 3}).build()
    for field, taken in (("vocab_size", "7 and 77"), ("max_position_embeddings", "49408 and 7")):
        with pytest.raises(ValueError, match=f"cuts texts at 32: the text encoder takes {taken}"):
            tiny_groupvit_config(
                text={field: 7, "bos_token_id": 0, "eos_token_id": 1}
            ).build_transform(tiny_tokenizer)
    with pytest.raises(ValueError, match="no tokenizer"):
        tiny_groupvit_config().tokenizer_source()
    with pytest.raises(FileNotFoundError, match="no readable weights in the folder"):
        tiny_groupvit_config(weights=str(tmp_path)).build()
    batch = GroupViTBatch(torch.rand(2, 3, 64, 64))
    with pytest.raises(ValueError, match="learns from captions"):
        method(batch)


def test_prompted_nouns_are_labels(tiny_tokenizer, photo):
    transform = GroupViTTransform(tiny_tokenizer, ViewConfig(side_px=32), num_labels=2)
    many, few = "a dog and a cat by a tree near a house", "a dog"
    for seed in range(20):
        labels = transform.sample(Source("k", photo((40, 30)), [many]), seed).labels
        named = [_noun_of(label) for label in labels]
        assert len(set(named)) == 2 and set(named) <= set(nouns(many))

    samples = [
        transform.sample(Source("k", photo((40, 30)), [text]), 3) for text in (many, few, "so blue")
    ]
    batch = transform.collate(samples).to(torch.device("cpu"))
    assert batch.labeled.tolist() == [[True, True], [True, False], [False, False]]
    wanted = tiny_tokenizer([*samples[0].labels, *samples[1].labels, "", "", ""])
    assert torch.equal(batch.labels.ids, wanted.ids)


def _noun_of(label: str) -> str:
    """The phrase that some template was filled with."""
    found = []
    for template in TEMPLATES["imagenet"]:
        before, after = template.split("{}")
        if label.startswith(before) and label.endswith(after):
            found.append(label[len(before) : len(label) - len(after)])
    return min(found, key=len)


def test_multi_label_loss_is_that_of_plain_loops(tiny_tokenizer):
    method = tiny_groupvit_config().build().eval()
    labeled = torch.tensor([[True, True], [True, False], [False, False]])
    labels = tiny_tokenizer(["a dog", "a cat", "a man", "", "", ""])
    batch = GroupViTBatch(
        torch.rand(3, 3, 32, 48), tiny_tokenizer(["a", "b", "c"]), labels=labels, labeled=labeled
    )
    losses = method(batch)

    image = method.group(batch.images).overall
    texts = method.encode_text(labels)[[0, 1, 2]]
    scores = method.logit_scale * image @ texts.T
    own = [[0, 1], [2]]
    to_text = []
    for row, columns in enumerate(own):
        to_text.append(-scores[row].softmax(0)[columns].sum().log())
    to_image = []
    for column, row in enumerate([0, 0, 1]):
        to_image.append(-scores[:, column].softmax(0)[row].log())
    wanted = (sum(to_text) / 2 + sum(to_image) / 3) / 2
    assert_close(losses.terms["labels"], wanted, rtol=1e-4, atol=1e-5)

    # Without labels there is the contrast with captions only.
    assert "labels" not in method(GroupViTBatch(batch.images, batch.captions)).terms
    assert tiny_groupvit_config(num_labels=3).for_inference().num_labels == 0

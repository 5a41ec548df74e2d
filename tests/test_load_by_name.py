"""Every name that `--model` takes is read: of the catalog, METHOD:SOURCE, files and open_clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import save_file

from maskfree.cli import main
from maskfree.data.config import ViewConfig
from maskfree.evaluation.reporting.published import published as published_scores
from maskfree.hub import loading
from maskfree.hub.catalog import BEST_METHODS, METHODS, MODELS
from maskfree.hub.convert import clip, groupvit
from maskfree.hub.readers import READERS, locate
from maskfree.inference.segmenter import Segmenter
from maskfree.methods.groupvit.config import GroupViTConfig
from maskfree.methods.maskclip.presets import METHOD_PRESETS
from maskfree.nn.dense_clip_config import MASKCLIP, NACLIP, PRESETS
from maskfree.text.tokenize import Tokenizer
from published_clip import clip_model, published
from tiny import TINY_DINO, tiny_groupvit_config
from tiny_published import save_clip, save_like

PUBLISHED = [entry for entry in MODELS.values() if entry.source]


@pytest.fixture
def nothing_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def clip_folder(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Path:
    save_clip(tmp_path / "a-clip", tiny_tokenizer)
    return tmp_path / "a-clip"


def labels_of(segmenter: Segmenter, photo: Callable) -> None:
    """Segment a photo whose sides are odd."""
    settings = replace(segmenter.inference, side_px=64, window_px=48, stride_px=32)
    small = segmenter.with_inference(settings).with_words(["dog", "grass"], templates="plain")
    result = small(photo((83, 57)))
    assert result.labels.shape == (57, 83)


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_every_name_of_the_catalog(
    entry, tmp_path: Path, tiny_tokenizer, photo, monkeypatch: pytest.MonkeyPatch
):
    save_like(entry.source, tmp_path / "weights", tiny_tokenizer)
    for method, preset in METHOD_PRESETS.items():
        if preset.proxy is not None:
            monkeypatch.setitem(METHOD_PRESETS, method, replace(preset, proxy=TINY_DINO))
    changed = replace(entry, source=str(tmp_path / "weights"))
    monkeypatch.setitem(MODELS, entry.name, changed)
    segmenter = loading.load(entry.name)
    assert segmenter.name == entry.name and segmenter.inference.side_px == entry.side_px
    if entry.method in METHOD_PRESETS:
        assert segmenter.method.image.last_block == METHOD_PRESETS[entry.method].last_block
    labels_of(segmenter, photo)


@pytest.mark.parametrize("name", [*(entry.name for entry in PUBLISHED), "naclip:a/b", "a/b"])
def test_offline_error_is_one_line_with_the_command(
    name: str, nothing_is_cached, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "examples/pagoda.jpg", "--words", "sky", "--model", name])
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and printed.count("\n") == 1
    assert (
        f"the model {name!r} cannot be read" in printed and f"maskfree download {name}`" in printed
    )


def test_tables_know_the_same_methods():
    assert METHODS.keys() == READERS.keys()
    assert set(BEST_METHODS.values()) <= METHODS.keys() and METHODS.keys() >= METHOD_PRESETS.keys()
    for entry in PUBLISHED:
        assert entry.method in METHODS
        proxy = METHOD_PRESETS[entry.method].proxy if entry.method in METHOD_PRESETS else None
        assert entry.also == (proxy.weights if proxy is not None else "")


def test_published_numbers_are_those_of_compare():
    """But for GroupViT's first weights, which `compare` does not list."""
    printed = {(row.benchmark, row.value, row.source) for row in published_scores()}
    for name, value, source in tuple(printed):
        if name == "context":
            printed.add(("context60", value, source))

    checked = 0
    for entry in PUBLISHED:
        quality = entry.quality
        for benchmark, value in (
            ("voc21", quality.voc21),
            ("voc20", quality.voc20),
            ("context60", quality.context60),
            ("ade20k", quality.ade),
        ):
            if value is not None and entry.name != "groupvit":
                assert (benchmark, value, quality.printed_in) in printed, entry.name
                checked += 1
    assert checked >= 17


def test_method_alone_reads_its_default(tmp_path: Path, clip_folder, monkeypatch):
    monkeypatch.setitem(METHODS, "clip_surgery", str(clip_folder))
    segmenter = loading.load("clip_surgery")
    assert segmenter.name == "clip_surgery"
    assert segmenter.method.image.last_block == PRESETS["clip_surgery"]


def test_source_alone_at_the_hub(clip_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A name at the Hub is read as a folder of that name is; here it is a folder."""
    monkeypatch.chdir(clip_folder.parent)
    Path("owner").mkdir()
    clip_folder.rename("owner/a-clip")
    segmenter = loading.load("owner/a-clip")
    assert segmenter.name == "a-clip" and segmenter.method.image.last_block == NACLIP


def test_file_of_a_clip(tmp_path: Path, clip_folder: Path, photo):
    state = {name: tensor.clone().contiguous() for name, tensor in published(wide_clip()).items()}
    save_file(state, clip_folder / "ViT.safetensors")
    segmenter = loading.load(f"maskclip:{clip_folder / 'ViT.safetensors'}")
    assert segmenter.name == "maskclip-ViT" and segmenter.method.image.last_block == MASKCLIP
    labels_of(segmenter, photo)


def wide_clip() -> transformers.CLIPModel:
    """A tiny CLIP whose heads have 64 channels, as a file of weights is assumed to have."""
    config = clip_model().config
    for part in (config.text_config, config.vision_config):
        part.hidden_size, part.num_attention_heads = 64, 1
    return transformers.CLIPModel(config)


def test_model_of_open_clip(clip_folder: Path, monkeypatch: pytest.MonkeyPatch, photo):
    asked = []

    def read(name: str):
        asked.append(name)
        return dict(published(clip_model())), "gelu", (3, 2)

    monkeypatch.setattr(clip, "read_open_clip", read)
    dense = replace(READERS["naclip"], tokenizer=str(clip_folder))
    monkeypatch.setitem(READERS, "naclip", dense)
    segmenter = loading.load("ViT-B-16/laion2b_s34b_b88k")
    assert asked == ["ViT-B-16:laion2b_s34b_b88k"]
    assert segmenter.name == "ViT-B-16-laion2b_s34b_b88k"
    assert segmenter.method.image.last_block == NACLIP
    labels_of(segmenter, photo)
    with pytest.raises(ValueError, match=r"is a CLIP of open_clip, which groupvit does not read"):
        loading.load("groupvit:ViT-B-16/openai")


def wide_groupvit() -> GroupViTConfig:
    """A tiny GroupViT whose heads have 64 channels, as in the released files."""
    tiny = tiny_groupvit_config()
    return replace(
        tiny,
        vision=tiny.vision | {"hidden_size": 64, "num_attention_heads": 1},
        text=tiny.text | {"hidden_size": 64, "num_attention_heads": 1},
        views=ViewConfig(side_px=64),
    )


def test_released_groupvit(tmp_path: Path, tiny_tokenizer: Tokenizer, photo):
    tower = wide_groupvit().build().tower
    state = released_groupvit(tower.state_dict())
    torch.save({"model": state, "epoch": 29}, tmp_path / "groupvit.pth")
    tiny_tokenizer.save(tmp_path / "tokenizer.json")

    segmenter = loading.load(f"groupvit:{tmp_path / 'groupvit.pth'}")
    assert segmenter.name == "groupvit"
    read = segmenter.method.tower.state_dict()
    for name, tensor in tower.state_dict().items():
        assert torch.equal(read[name], tensor), name
    labels_of(segmenter, photo)

    # The same as a folder, from a file of before torch 1.6 without anything around the tensors.
    old, out = tmp_path / "old.pth", tmp_path / "converted"
    torch.save(state, old, _use_new_zipfile_serialization=False)
    words = ["convert", "groupvit", str(old), str(out), "--tokenizer", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    for name, tensor in loading.load(out).method.tower.state_dict().items():
        assert torch.equal(tower.state_dict()[name], tensor), name
    with pytest.raises(FileExistsError, match="exists: name a folder that is yet to be made"):
        groupvit.convert_groupvit(old, out, str(tmp_path))

    # A tensor that is missing, left over or misshapen.
    for broken, said in (
        ({}, "missing: .*self_attn"),
        ({"odd": torch.zeros(1)}, "left over: odd"),
        ({"logit_scale": torch.zeros(3)}, r"logit_scale is \(3,\), not \(\)"),
    ):
        wrong = state | broken
        if not broken:
            del wrong["img_encoder.layers.0.blocks.0.attn.qkv.weight"]
        torch.save({"model": wrong}, tmp_path / "groupvit.pth")
        with pytest.raises(ValueError, match=f"no GroupViT as released; {said}"):
            groupvit.read_groupvit_file(tmp_path / "groupvit.pth", str(tmp_path))
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "groupvit.pth")
    with pytest.raises(
        ValueError, match=r"groupvit\.pth is no GroupViT as released; missing: img_enc"
    ):
        groupvit.read_groupvit_file(tmp_path / "groupvit.pth", str(tmp_path))


def released_groupvit(own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of transformers under the authors' names, written down here once more by hand."""
    state = {
        "logit_scale": own["logit_scale"],
        "img_encoder.pos_embed": own["vision_model.embeddings.position_embeddings"],
        "text_encoder.positional_embedding": own["text_model.embeddings.position_embedding.weight"],
        "text_encoder.token_embedding.weight": own["text_model.embeddings.token_embedding.weight"],
    }
    moved = {
        "vision_model.embeddings.patch_embeddings.projection": "img_encoder.patch_embed.proj",
        "vision_model.embeddings.layernorm": "img_encoder.patch_embed.norm",
        "vision_model.layernorm": "img_encoder.norm",
        "text_model.final_layer_norm": "text_encoder.ln_final",
    }
    for side, projector in (("visual", "img_projector"), ("text", "text_projector")):
        moved[f"{side}_projection.0"] = f"{projector}.linear_hidden.0"
        moved[f"{side}_projection.1"] = f"{projector}.linear_hidden.1"
        moved[f"{side}_projection.3"] = f"{projector}.linear_out"
    layers = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj"}
    texts = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for stage, depth in ((0, 2), (1, 1), (2, 1)):
        here, there = f"vision_model.encoder.stages.{stage}", f"img_encoder.layers.{stage}"
        for layer in range(depth):
            blocks = f"{here}.layers.{layer}", f"{there}.blocks.{layer}"
            for mine, theirs in (layers | {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}).items():
                moved[f"{blocks[0]}.{mine}"] = f"{blocks[1]}.{theirs}"
            for kind in ("weight", "bias"):
                parts = [own[f"{blocks[0]}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                state[f"{blocks[1]}.attn.qkv.{kind}"] = torch.cat(parts)
        for name in own:
            if name.startswith((f"{here}.group_token", f"{here}.group_projector", f"{here}.down")):
                key = name.replace(here, there).replace("attn.attn.out_proj", "attn.attn.proj")
                state[key] = own[name]
    for layer in range(2):
        here, there = (
            f"text_model.encoder.layers.{layer}",
            f"text_encoder.transformer.resblocks.{layer}",
        )
        for mine, theirs in texts.items():
            moved[f"{here}.{mine}"] = f"{there}.{theirs}"
        for kind in ("weight", "bias"):
            parts = [own[f"{here}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            state[f"{there}.attn.in_proj_{kind}"] = torch.cat(parts)
    for mine, theirs in moved.items():
        for name in own:
            if name.startswith(f"{mine}.") and not name.endswith("batches_tracked"):
                state[theirs + name.removeprefix(mine)] = own[name]
    # The authors' projections are convolutions of length 1.
    for name in ("img_projector.linear_out.weight", "text_projector.linear_hidden.0.weight"):
        state[name] = state[name][..., None]
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("naclips:a/b", r"there is no method 'naclips': one of clearclip, .*, value_only"),
        ("ovsegmentor", r"the weights of ovsegmentor have no name .*: give ovsegmentor:FILE"),
        ("ovsegmentor:a/b", r"there is no file 'a/b': ovsegmentor reads a file of weights"),
        ("naclip:a/b/c", r"'a/b/c' is no folder, no file, no name at Hugging Face \(OWNER/NAME\)"),
        ("nothing", r"the model 'nothing' is unknown: pocket, .*, or a checkpoint's folder"),
        ("naclip:{checkpoint}", r"is a checkpoint, which states its method: leave naclip: out"),
        ("{file}", r"is a file, which does not say what it holds: give METHOD:"),
        ("groupvit:{clip}", r"is a model of the kind 'clip', not a GroupViT"),
    ],
)
def test_what_cannot_be_read(
    model: str, said: str, tiny_checkpoint: Path, clip_folder: Path, nothing_is_cached
):
    file = clip_folder / "model.safetensors"
    with pytest.raises((ValueError, OSError), match=said) as raised:
        loading.load(model.format(checkpoint=tiny_checkpoint, file=file, clip=clip_folder))
    assert "\n" not in str(raised.value)


def test_name_of_a_method_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("naclip").mkdir()
    located = locate("naclip")
    assert located is not None and located.source == MODELS["naclip"].source
    assert locate("./naclip") is None and locate(Path("naclip")) is None


def test_teacher_becomes_a_checkpoint_once(clip_folder: Path, tmp_path: Path, photo):
    model = f"sclip:{clip_folder}"
    made = loading.checkpoint_of(model, tmp_path / "out")
    assert made == tmp_path / "out" / "sclip-a-clip"
    direct, again = loading.load(model), loading.load(made)
    assert again.name == direct.name and again.inference == direct.inference
    assert again.templates == direct.templates
    state = again.method.state_dict()
    for name, tensor in direct.method.state_dict().items():
        assert torch.equal(state[name], tensor), name

    # What is there is not read anew, and a checkpoint is its own.
    (clip_folder / "model.safetensors").unlink()
    assert loading.checkpoint_of(model, tmp_path / "out") == made
    assert loading.checkpoint_of(made, tmp_path / "other") == made
    assert not (tmp_path / "other").exists()
    with pytest.raises(ValueError, match="groupvit cannot teach: a student cannot take the text"):
        loading.checkpoint_of("groupvit", tmp_path / "out")

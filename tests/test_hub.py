from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

import maskfree
from maskfree.cli import main
from maskfree.devices import available
from maskfree.hub import loading
from maskfree.hub.catalog import MODELS, model_folder
from maskfree.inference.config import Inference
from maskfree.inference.features import embed
from maskfree.nn.convolutions import FrozenBatchNorm
from maskfree.nn.dense_clip_config import MASKCLIP, NACLIP
from maskfree.text.templates import TEMPLATES
from tiny import TINY_CLIP_TEXT, TINY_CLIP_VISION, tiny_groupvit_config


def rename(monkeypatch: pytest.MonkeyPatch, name: str, source: Path) -> None:
    """Let a model of the catalog have its weights in a folder."""
    monkeypatch.setitem(MODELS, name, replace(MODELS[name], source=str(source)))


def test_folder_becomes_a_segmenter(tiny_checkpoint: Path, photo):
    segmenter = loading.load(tiny_checkpoint)
    assert segmenter.name == "tiny"
    assert segmenter.templates == ("a photo of a {}",)
    assert len(segmenter.weights_hash) == 64
    result = segmenter.with_words(["dog", "grass"])(photo((83, 57)))
    assert result.record["model"] == {"name": "tiny", "weights_sha256": segmenter.weights_hash}
    assert loading.load(str(tiny_checkpoint)).weights_hash == segmenter.weights_hash


def test_batch_norms_are_folded(tiny_checkpoint: Path):
    modules = list(loading.load(tiny_checkpoint).method.modules())
    assert any(isinstance(module, torch.nn.Conv2d) for module in modules)
    assert not any(isinstance(module, FrozenBatchNorm) for module in modules)


def test_unknown_model():
    with pytest.raises(
        FileNotFoundError,
        match=r"the model 'pockett' is unknown: pocket, .*, or a checkpoint's folder",
    ):
        loading.load("pockett")


def test_folder_without_a_checkpoint(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint: it has no"):
        loading.load(tmp_path)


@pytest.mark.parametrize("device", ["cuda:99", "meta", "gpu", "", "hpu", "cpu:1", "nonsense:3"])
def test_unknown_device(tiny_checkpoint: Path, device: str):
    there = ", ".join(("auto", *available()))
    with pytest.raises(
        ValueError, match=f"^the device {device!r} is not there: choose from {there}$"
    ):
        loading.load(tiny_checkpoint, device)


def test_package_offers_the_main_names():
    assert maskfree.load is loading.load
    assert {maskfree.Segmenter.__name__, maskfree.Segmentation.__name__} == {
        "Segmenter",
        "Segmentation",
    }
    assert maskfree.__version__.count(".") == 2
    assert set(maskfree.__all__) <= set(dir(maskfree))
    with pytest.raises(AttributeError, match="has no attribute 'segmenter'"):
        _ = maskfree.segmenter


def test_importing_the_package_imports_nothing_heavy():
    code = "import maskfree, sys; assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(
    not (Path(maskfree.__file__).parent / "pocket" / "run.json").is_file(),
    reason="no bundled model yet",
)
def test_bundled_model_is_small_and_named():
    folder = Path(maskfree.__file__).parent / "pocket"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 40e6
    assert loading.load().name == "pocket"


@pytest.fixture
def groupvit_folder(tmp_path: Path, tiny_tokenizer) -> Path:
    """A GroupViT as transformers saves it, with random weights."""
    folder = tmp_path / "a-groupvit"
    tiny_groupvit_config().build().tower.save_pretrained(folder)
    tiny_tokenizer.save(folder / "tokenizer.json")
    return folder


def test_groupvit_of_transformers_is_shown_photos_as_its_authors_do(groupvit_folder: Path, photo):
    segmenter = loading.load(groupvit_folder)
    assert segmenter.name == "a-groupvit" and segmenter.templates == ("a photo of a {}.",)
    assert segmenter.inference == Inference(
        side_px=448, max_whole_px=1, window_px=448, stride_px=224, score="product"
    )
    assert segmenter.tokenizer.max_length == 32
    result = segmenter.with_words(["dog", "grass"], "threshold:0.9")(photo((83, 57)))
    assert (
        result.labels.shape == (57, 83)
        and result.record["model"]["weights_sha256"] == segmenter.weights_hash
    )
    assert loading.load(groupvit_folder).weights_hash == segmenter.weights_hash


def test_published_model_is_read_by_its_name(
    groupvit_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    rename(monkeypatch, "groupvit", groupvit_folder)
    segmenter = loading.load("groupvit")
    assert segmenter.name == "groupvit"
    assert segmenter.weights_hash == loading.load(groupvit_folder).weights_hash


def test_published_model_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rename(monkeypatch, "groupvit-redcaps", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"^the model 'groupvit-redcaps' cannot be read: no readable "
    ):
        loading.load("groupvit-redcaps")
    with pytest.raises(FileNotFoundError, match="the model 'groupvit' is no checkpoint"):
        model_folder("groupvit")


def test_groupvit_folder_without_a_tokenizer_or_weights(groupvit_folder: Path):
    (groupvit_folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer in"):
        loading.load(groupvit_folder)
    (groupvit_folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no readable weights in the folder"):
        loading.load(groupvit_folder)
    for text, said in (
        ("[]", r"config\.json is no JSON of settings: it holds no object"),
        ('{"model_type": "bert"}', r"is a model of the kind 'bert', which no method reads: one of"),
    ):
        (groupvit_folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            loading.load(groupvit_folder)


@pytest.fixture
def clip_folder(tmp_path: Path, tiny_tokenizer) -> Path:
    """A CLIP as transformers saves it, with random weights."""
    folder = tmp_path / "a-clip"
    config = transformers.CLIPConfig(
        projection_dim=18, text_config=TINY_CLIP_TEXT, vision_config=TINY_CLIP_VISION
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    tiny_tokenizer.save(folder / "tokenizer.json")
    return folder


def test_clip_alone_is_read_by_the_best_method(clip_folder: Path, photo):
    segmenter = loading.load(clip_folder)
    assert segmenter.name == "a-clip" and segmenter.templates == TEMPLATES["imagenet"]
    assert segmenter.method.image.last_block == NACLIP
    segmenter = loading.load(f"maskclip:{clip_folder}")
    assert segmenter.name == "maskclip-a-clip" and segmenter.templates == TEMPLATES["maskclip"]
    assert segmenter.method.image.last_block == MASKCLIP
    segmenter = segmenter.with_inference(Inference(side_px=64))
    result = segmenter.with_words(["dog", "grass"], templates="plain")(photo((83, 57)))
    assert result.labels.shape == (57, 83) and set(result.words) == {"dog", "grass"}
    assert loading.load(clip_folder).weights_hash == segmenter.weights_hash
    embeddings = embed(segmenter, photo((83, 57)))
    assert embeddings.values.shape[0] == 18 and embeddings.at(4, 6).shape == (18, 4, 6)


def test_siglip_of_transformers_is_read(tmp_path: Path, tiny_tokenizer, photo):
    text = {**TINY_CLIP_TEXT, "projection_size": 24}
    config = transformers.SiglipConfig(text_config=text, vision_config=TINY_CLIP_VISION)
    transformers.SiglipModel(config).save_pretrained(tmp_path)
    tiny_tokenizer.save(tmp_path / "tokenizer.json")
    segmenter = loading.load(tmp_path)
    assert segmenter.templates == ("this is a photo of {}.",)
    small = segmenter.with_inference(Inference(side_px=64)).with_words(["dog", "grass"])
    assert small(photo((83, 57))).labels.shape == (57, 83)


def test_clip_on_the_command_line(
    clip_folder: Path, photo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    photo((83, 57)).save(tmp_path / "photo.png")
    words = ["--words", "dog", "grass", "--templates", "photo", "--side-px", "64"]
    places = ["--model", str(clip_folder), "--out", str(tmp_path / "out")]
    for arguments in (["segment", str(tmp_path / "photo.png"), *words, *places], ["models"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert not stopped.value.code
    assert (tmp_path / "out" / "photo.png").is_file()
    listed = capsys.readouterr().out
    assert all(name in listed for name in MODELS)


def test_published_clips_have_their_last_block(clip_folder: Path, monkeypatch: pytest.MonkeyPatch):
    rename(monkeypatch, "naclip", clip_folder)
    segmenter = loading.load("naclip")
    assert segmenter.name == "naclip" and segmenter.method.image.last_block == NACLIP
    assert segmenter.inference.window_px == 224 and segmenter.templates == TEMPLATES["imagenet"]


def test_published_clip_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rename(monkeypatch, "maskclip", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"^the model 'maskclip' cannot be read: no readable "
    ):
        loading.load("maskclip")


def test_clip_folder_that_lacks_something(clip_folder: Path):
    (clip_folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer in"):
        loading.load(clip_folder)

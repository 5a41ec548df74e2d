"""CLIP from files of others and from transformers: the same network, whole or refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.cli import main
from maskfree.hub import loading
from maskfree.hub.convert import convert_clip
from maskfree.inference.config import Inference
from maskfree.nn.dense_clip_config import MASKCLIP, NACLIP
from maskfree.types import Tokens
from published_clip import clip_model, published

HEADS = (3, 2)


@pytest.fixture
def words(tmp_path: Path, tiny_tokenizer) -> str:
    """A folder with a tokenizer of the text tower's few words."""
    (tmp_path / "words").mkdir()
    tiny_tokenizer.save(tmp_path / "words" / "tokenizer.json")
    return str(tmp_path / "words")


def plain(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


@torch.no_grad()
@pytest.mark.parametrize("kind", ["safetensors", "pt", "training"])
def test_file_becomes_a_model_with_the_same_numbers(kind, tmp_path: Path, words: str, photo):
    model = clip_model()
    file = tmp_path / f"clip.{kind}"
    if kind == "safetensors":
        save_file(plain(published(model)), file)
    elif kind == "pt":
        torch.save({name: tensor.half() for name, tensor in plain(published(model)).items()}, file)
    else:
        torch.save(
            {
                "epoch": 3,
                "state_dict": {f"module.{k}": v for k, v in plain(published(model)).items()},
            },
            file,
        )
    convert_clip(str(file), tmp_path / "model", tokenizer=words, heads=HEADS)
    segmenter = loading.load(tmp_path / "model")
    loose = {"atol": 2e-3, "rtol": 2e-2} if kind == "pt" else {"atol": 1e-5, "rtol": 1e-4}
    ids = torch.cat(
        [torch.randint(4, 399, (3, 9)), torch.full((3, 1), 399)], dim=1
    )  # 399 ends a text there
    theirs = model.get_text_features(input_ids=ids).pooler_output
    tokens = Tokens(ids, torch.ones_like(ids, dtype=torch.bool))
    assert_close(segmenter.method.encode_text(tokens), F.normalize(theirs, dim=1), **loose)
    assert segmenter.method.image.last_block == MASKCLIP
    assert segmenter.method.logit_scale == pytest.approx(model.logit_scale.exp().item(), rel=1e-3)
    image = torch.rand(1, 3, 32, 32)
    tower = segmenter.method.image.tower
    assert_close(tower(image).image_embeds, model.get_image_features(image).pooler_output, **loose)
    small = segmenter.with_inference(Inference(side_px=64)).with_words(
        ["dog", "grass"], templates="plain"
    )
    assert small(photo((83, 57))).labels.shape == (57, 83)


def test_folder_of_transformers_on_the_command_line(tmp_path: Path, words: str, capsys):
    clip_model().save_pretrained(words)
    out = tmp_path / "model"
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "clip", words, str(out), "--last-block", "naclip"])
    assert not stopped.value.code and f"--model {out}" in capsys.readouterr().out
    segmenter, direct = loading.load(out), loading.load(words)
    assert segmenter.method.image.last_block == NACLIP and segmenter.inference.window_px == 224
    assert segmenter.name == "model"
    for name, tensor in segmenter.method.state_dict().items():
        assert torch.equal(tensor, direct.method.state_dict()[name]), name


def test_files_that_are_refused(tmp_path: Path, words: str):
    out, file = tmp_path / "model", tmp_path / "clip.pt"
    torch.jit.script(torch.nn.Linear(2, 3)).save(str(file))
    with pytest.raises(ValueError, match=r"is a TorchScript archive.*safetensors") as refused:
        convert_clip(str(file), out, tokenizer=words)
    assert "\n" not in str(refused.value)
    torch.save({"weight": Path("a")}, file)
    with pytest.raises(ValueError, match="is no file of tensors that can be read safely"):
        convert_clip(str(file), out, tokenizer=words)
    torch.save([torch.zeros(2)], file)
    with pytest.raises(ValueError, match="holds no state dict"):
        convert_clip(str(file), out, tokenizer=words)
    (tmp_path / "clip.safetensors").write_bytes(b"12")
    with pytest.raises(ValueError, match="is no safetensors file, or is damaged"):
        convert_clip(str(tmp_path / "clip.safetensors"), out, tokenizer=words)
    state = plain(published(clip_model()))
    save_file(state | {"visual.odd": torch.zeros(1)}, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match=r"left over: visual\.odd"):
        convert_clip(str(tmp_path / "clip.safetensors"), out, tokenizer=words, heads=HEADS)
    with pytest.raises(ValueError, match="give both numbers of heads"):
        convert_clip(str(tmp_path / "clip.safetensors"), out, tokenizer=words)
    assert not out.exists()


def test_folders_and_names_that_are_refused(tmp_path: Path, words: str):
    with pytest.raises(FileExistsError, match="name a folder that is yet to be made"):
        convert_clip(words, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json"):
        convert_clip(words, tmp_path / "model")
    clip_model().save_pretrained(words)
    with pytest.raises(ValueError, match="the last block 'naclipp' is unknown"):
        convert_clip(words, tmp_path / "model", last_block="naclipp")


def test_model_of_open_clip(tmp_path: Path, words: str, monkeypatch: pytest.MonkeyPatch):
    open_clip = pytest.importorskip(
        "open_clip", reason="open_clip is not installed (the extra zoo)"
    )
    text = {"context_length": 32, "vocab_size": 400, "width": 20, "heads": 2, "layers": 2}
    tower = {"image_size": 32, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8}
    resnet = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    made = {
        "vit": open_clip.CLIP(
            embed_dim=18, vision_cfg=tower, text_cfg=text, quick_gelu=True
        ).eval(),
        "resnet": open_clip.CLIP(embed_dim=18, vision_cfg=resnet, text_cfg=text).eval(),
    }
    monkeypatch.setattr(
        open_clip, "create_model", lambda name, pretrained, require_pretrained: made[name]
    )
    photos = torch.rand(1, 3, 32, 32)
    for name, model in made.items():
        convert_clip(f"open_clip:{name}:weights", tmp_path / name, tokenizer=words)
        method = loading.load(tmp_path / name).method
        ids = torch.cat([torch.randint(4, 399, (2, 31)), torch.full((2, 1), 399)], dim=1)
        tokens = Tokens(ids, torch.ones_like(ids, dtype=torch.bool))
        with torch.no_grad():
            assert_close(
                method.encode_text(tokens),
                model.encode_text(ids, normalize=True),
                atol=1e-5,
                rtol=1e-4,
            )
            assert method.image(photos).shape[1] == 18
    with torch.no_grad():
        tower = loading.load(tmp_path / "vit").method.image.tower
        assert_close(
            tower(photos).image_embeds, made["vit"].encode_image(photos), atol=1e-5, rtol=1e-4
        )

"""Released checkpoints: safe to read, complete, and with the numbers of the code that they come
from.
"""

from __future__ import annotations

import enum
import json
import os
import pickle
import sys
import typing
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.cli import main
from maskfree.data.config import ViewConfig
from maskfree.hub import loading
from maskfree.hub.convert import (
    convert_ovsegmentor,
    official_names,
    ovsegmentor_config,
    read_released,
)
from maskfree.hub.convert.ovsegmentor import read_ovsegmentor
from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.method import Method
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.types import Tokens
from shared_folder import SHARED

FOLDER = SHARED / "fixtures"
HERE = pytest.mark.skipif(
    not (FOLDER / "ovsegmentor_text.json").exists(), reason="../shared/fixtures is not here"
)
MADE_UP = ("ovsegmentor_train_step_stage1", "ovsegmentor_train_step_stage2")


def described(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())["hyper_parameters"]


def weights(name: str, start: str = "") -> dict[str, Tensor]:
    """The weights of a fixture under the names of the released code, those that begin
    with START.
    """
    tensors = load_file(FOLDER / f"{name}.safetensors")
    return {key[2:]: value for key, value in tensors.items() if key.startswith(f"w.{start}")}


def omegaconf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An object that looks to pickle like the settings of a run, which nobody but OmegaConf can
    read.
    """
    module = ModuleType("omegaconf.dictconfig")

    class DictConfig: ...

    class Kind(enum.Enum):
        SOME = 1

    for kind in (DictConfig, Kind):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings: Any = DictConfig()
    settings.content = {
        "depths": [6, 6],
        "kind": Kind.SOME,
        "type": typing.Any,
        "hint": typing.Optional[int],  # noqa: UP045
    }
    settings.cache = defaultdict(dict, {"a": {}})
    return settings


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Tensor]], Path]:
    """`write(weights)` is a file as the authors' training wrote it."""

    def as_released(state: dict[str, Tensor]) -> Path:
        path = tmp_path / "released.pth"
        with pytest.MonkeyPatch.context() as monkeypatch:
            content = {
                "model": state,
                "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]},
                "lr_scheduler": {"last_epoch": 29},
                "epoch": 29,
                "max_miou": np.float64(53.8),
                "config": omegaconf(monkeypatch),
            }
            torch.save(content, path)
        return path

    return as_released


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tokenizer of few words, for text encoders that know few."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", ".", "dog", "cat"]
    model = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("words")
    model.save(str(folder / "tokenizer.json"))
    return str(folder)


@pytest.fixture
def converted(tmp_path: Path, write, tokenizer) -> Callable[..., Segmenter]:
    """`converted(weights)` is the model that the converter makes of them."""

    def through_the_folder(
        state: dict[str, Tensor], num_heads: int = 8, num_text_heads: int = 2
    ) -> Segmenter:
        convert_ovsegmentor(write(state), tmp_path / "model", tokenizer, num_heads, num_text_heads)
        return loading.load(tmp_path / "model")

    return through_the_folder


def heads_of(name: str) -> tuple[int, int]:
    """Attention heads of a fixture's images and texts; those of its kind where it has none."""
    sizes = described(name)
    return (
        sizes.get("num_heads", [8])[0],
        sizes.get("bert", described(MADE_UP[0])["bert"])["num_attention_heads"],
    )


def image_of(name: str) -> dict[str, Any]:
    """Settings of a fixture's image encoder."""
    sizes = described(name)
    return {
        "dim": sizes["embed_dim"],
        "patch_px": sizes["patch_size"],
        "side_px": sizes["img_size"],
        "depths": tuple(sizes["depths"]),
        "num_heads": sizes["num_heads"][0],
        "num_tokens": sizes["num_group_tokens"][0],
        "num_groups": sizes["num_output_groups"][0],
    }


def cases_of(name: str) -> list[dict[str, Any]]:
    """Cases of a fixture; none if it is not here."""
    return described(name)["cases"] if (FOLDER / f"{name}.json").exists() else []


def filled_up(part: dict[str, Tensor], **changes: Any) -> dict[str, Tensor]:
    """A whole released state with PART of a fixture in it, and random values otherwise."""
    base = ovsegmentor_config(weights(MADE_UP[0]), *heads_of(MADE_UP[0]))
    image = replace(base.image, **changes.pop("image", {}))
    architecture = base.text.architecture | {"hidden_size": image.dim} | changes.pop("text", {})
    config = replace(
        base, image=image, text=replace(base.text, architecture=architecture), **changes
    )
    config = replace(config, views=ViewConfig(side_px=image.side_px))
    state = config.build().state_dict()
    names = official_names(state, image.depths)
    assert set(part) <= set(names)
    whole = {theirs: state[ours] for theirs, ours in names.items()}
    linear = [
        key for key in whole if key.endswith((".linear_hidden.0.weight", ".linear_out.weight"))
    ]
    return whole | {key: whole[key][..., None] for key in linear} | part


def as_photo(normalized: Tensor) -> Tensor:
    deviation, mean = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.229, 0.224, 0.225), (0.485, 0.456, 0.406))
    )
    return normalized * deviation + mean


def tiled(tensors: dict[str, Tensor], name: str) -> Tensor:
    """An image that a fixture stores as a coarse one times a pattern."""
    coarse, patch = tensors[f"{name}_coarse"], tensors[f"{name}_patch"]
    rows, columns = coarse.shape[2:]
    large = coarse.repeat_interleave(patch.shape[2], 2).repeat_interleave(patch.shape[3], 3)
    return large * patch.repeat(1, 1, rows, columns)


def close(ours: Tensor, theirs: Tensor) -> None:
    assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@HERE
@pytest.mark.parametrize("name", MADE_UP)
@torch.no_grad()
def test_both_stages_become_models(name: str, converted, tmp_path: Path):
    tensors, released = load_file(FOLDER / f"{name}.safetensors"), weights(name)
    segmenter = converted(released, *heads_of(name))
    groups = segmenter.method.group(as_photo(tiled(tensors, "in.image")))
    close(groups.assignment.flatten(2), tensors["mid.attn_soft"][:, 0])
    assert segmenter.method.logit_scale == pytest.approx(float(released["logit_scale"].exp()))
    assert segmenter.inference == Inference(
        score="product", side_px=448, window_px=448, stride_px=224, max_whole_px=1
    )
    assert segmenter.templates == ("a photo of a {}.",)
    assert (
        json.loads((tmp_path / "model" / "run.json").read_text())["source"]["thresholds"]["voc"]
        == 0.95
    )
    decoder = segmenter.method.entity.decoder
    start = "multimodal_groupingblock.blocks.0"
    assert torch.equal(
        decoder.block.attn.qkv.weight, released[f"{start}.post_attn.attn.qkv.weight"]
    )
    assert torch.equal(decoder.norm_groups.weight, released[f"{start}.norm_x.weight"])


@HERE
@pytest.mark.parametrize("case", [case["name"] for case in cases_of("ovsegmentor_visual")])
@torch.no_grad()
def test_groups_equal_the_released_code(case: str, converted):
    tensors = load_file(FOLDER / "ovsegmentor_visual.safetensors")
    name, embed_dim = "ovsegmentor_visual", described("ovsegmentor_visual")["output_dim"]
    whole = filled_up(weights(name), image=image_of(name), embed_dim=embed_dim)
    method = converted(whole, heads_of(name)[0]).method
    groups = method.group(as_photo(tensors[f"in.{case}.image"]))
    close(groups.assignment.flatten(2), tensors[f"out.{case}.attn_soft"][:, 0])
    close(groups.embeddings, F.normalize(tensors[f"out.{case}.image_feat"], dim=-1))
    close(groups.overall, F.normalize(tensors[f"out.{case}.image_x"], dim=-1))


@HERE
@torch.no_grad()
def test_larger_photos_equal_the_released_code(converted):
    name = "ovsegmentor_visual_posresize"
    tensors, sizes = load_file(FOLDER / f"{name}.safetensors"), described(name)
    case = sizes["cases"][0]["name"]
    whole = filled_up(weights(name), image=image_of(name), embed_dim=sizes["output_dim"])
    method = converted(whole, heads_of(name)[0]).method
    photo = as_photo(tiled(tensors, f"in.{case}.image"))
    groups = method.group(photo)
    assert groups.patches == tuple(side // sizes["patch_size"] for side in photo.shape[2:])
    close(groups.assignment.flatten(2), tensors[f"out.{case}.attn_soft"][:, 0])
    close(groups.embeddings, F.normalize(tensors[f"out.{case}.image_feat"], dim=-1))


@HERE
@torch.no_grad()
def test_texts_equal_the_released_code(converted):
    tensors, sizes = (
        load_file(FOLDER / "ovsegmentor_text.safetensors"),
        described("ovsegmentor_text"),
    )
    bert = sizes["bert"]
    part = {
        key: value for key, value in weights("ovsegmentor_text").items() if ".pooler." not in key
    }
    image = {"dim": bert["hidden_size"]}
    whole = filled_up(part, image=image, text=bert, embed_dim=sizes["out"])
    method = converted(whole, num_text_heads=bert["num_attention_heads"]).method
    tokens = Tokens(tensors["in.input_ids"], tensors["in.attention_mask"].bool())
    close(method.encode_text(tokens), F.normalize(tensors["out.text_x"], dim=-1))


class Shown(Method):
    """Another method that is shown, in place of a photo, its rows as red and its columns
    as green.
    """

    def __init__(self, method: Method, photo: Tensor):
        super().__init__()
        self.method, self.photo = method, photo

    def forward(self, batch):
        raise NotImplementedError

    def encode_text(self, tokens):
        return self.method.encode_text(tokens)

    def group(self, images):
        height, width = images.shape[2:]
        corners = (images[:, :2, 0, 0] * 255).round().int().tolist()
        crops = [self.photo[:, top : top + height, left : left + width] for top, left in corners]
        return self.method.group(torch.stack(crops))

    @property
    def logit_scale(self):
        return self.method.logit_scale

    @property
    def patch_size(self):
        return self.method.patch_size


def token_of_each(texts: Sequence[str]) -> Tokens:
    """A token of its own for each text: the first is 1."""
    return Tokens(
        torch.arange(1, len(texts) + 1)[:, None], torch.ones(len(texts), 1, dtype=torch.bool)
    )


@HERE
@pytest.mark.parametrize("number", range(len(cases_of("ovsegmentor_slide"))))
@torch.no_grad()
def test_whole_inference_equals_the_released_code(number: int, converted):
    tensors, case = (
        load_file(FOLDER / "ovsegmentor_slide.safetensors"),
        described("ovsegmentor_slide")["cases"][number],
    )
    height, width, num_classes = case["H"], case["W"], case["K"]
    name, embed_dim = case["name"], described("ovsegmentor_slide")["output_dim"]
    whole = filled_up(
        weights("ovsegmentor_slide"), image=image_of("ovsegmentor_slide"), embed_dim=embed_dim
    )
    segmenter = converted(whole, heads_of("ovsegmentor_slide")[0])
    words = [f"word {i}" for i in range(num_classes)]  # their embeddings are the fixture's
    segmenter = replace(segmenter, tokenizer=token_of_each)
    rule = f"threshold:{case['bg_thresh']}" if case["with_bg"] else "none"
    segmenter = replace(
        segmenter.with_words(words, rule),
        method=Shown(segmenter.method, as_photo(tensors[f"in.{name}.image"][0])),
        inference=replace(
            segmenter.inference,
            side_px=height,
            window_px=case["crop"][0],
            stride_px=case["stride"][0],
        ),
        embeddings=tensors[f"in.{name}.text_embedding"],
    )
    places = np.zeros((height, width, 3), np.uint8)
    places[..., 0], places[..., 1] = np.arange(height)[:, None], np.arange(width)
    scores = segmenter.score_map(Image.fromarray(places))
    theirs = tensors[f"out.{name}.averaged_logits"]
    if case["with_bg"]:
        theirs = theirs.roll(-1, 0)  # there the background comes first
    close(scores, theirs)
    labels, _ = segmenter.labels_of(scores, tuple(case["ori_shape"]))
    wanted = tensors[f"out.{name}.label_map"].numpy()
    if case["with_bg"]:
        wanted = (wanted - 1) % (num_classes + 1)
    assert (labels == wanted).mean() >= 0.995


def test_only_tensors_are_read_and_names_stay_names(write):
    state = {"logit_scale": torch.tensor(2.5), "a.weight": torch.rand(3, 2)}
    read = read_released(write(state), "OVSegmentor")
    assert read.keys() == state.keys() and all(
        torch.equal(read[name], state[name]) for name in state
    )
    assert "omegaconf.dictconfig" not in sys.modules


def test_files_of_old_versions_and_bare_states_are_read(write, tmp_path: Path, monkeypatch):
    state = {"logit_scale": torch.tensor(2.5), "a.weight": torch.rand(3, 2).T}
    file = tmp_path / "old.pth"
    whole = {"model": state, "config": omegaconf(monkeypatch), "max_miou": np.float64(53.8)}
    contents = {"whole": whole, "bare": state, "nested": {"state_dict": state, "epoch": 3}}
    contents["ordered"] = OrderedDict(state)
    for name, content in contents.items():
        for new in (True, False):
            torch.save(content, file, _use_new_zipfile_serialization=new)
            read = read_released(file, "OVSegmentor")
            assert read.keys() == state.keys(), (name, new)
            assert all(torch.equal(read[key], state[key]) for key in state), (name, new)
    torch.save({"a": torch.rand(2), "epoch": 3}, file)
    with pytest.raises(ValueError, match="no tensors under the name 'model', and is no state"):
        read_released(file, "OVSegmentor")


@pytest.mark.parametrize("protocol", [2, 4])
def test_programs_in_old_files_are_refused_and_not_run(tmp_path: Path, protocol: int):
    done, file = tmp_path / "done", tmp_path / "old.pth"
    content = {"model": {"a": torch.rand(2)}, "config": Harmful(os.mkdir, str(done))}
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"mkdir, for which a released|operation STACK_GLOBAL"):
        read_released(file, "OVSegmentor")
    assert not done.exists()

    whole = file.read_bytes()
    for cut in (3, 40, len(whole) - 4):
        file.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"old\.pth"):
            read_released(file, "OVSegmentor")
    file.write_bytes(pickle.dumps([1, 2]) * 5)
    with pytest.raises(ValueError, match="is no checkpoint of torch, or is damaged"):
        read_released(file, "OVSegmentor")


class Harmful:
    """What runs a command when it is unpickled."""

    def __init__(self, action: Callable[..., Any], *arguments: Any):
        self.parts = (action, arguments)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize(
    ("action", "name"), [(os.system, "system"), (eval, "builtins.eval"), (os.mkdir, "mkdir")]
)
def test_programs_are_refused_and_not_run(tmp_path: Path, action: Callable[..., Any], name: str):
    done = tmp_path / "done"
    argument = {
        "system": f"touch {done}",
        "builtins.eval": f"open({str(done)!r}, 'w')",
        "mkdir": str(done),
    }[name]
    torch.save({"model": {}, "config": Harmful(action, argument)}, tmp_path / "file.pth")
    with pytest.raises(
        ValueError, match=f"{name}, for which a released checkpoint has no use: it is not read"
    ):
        read_released(tmp_path / "file.pth", "OVSegmentor")
    assert not done.exists()


def test_of_numpy_only_what_numbers_need_is_read(tmp_path: Path):
    file = tmp_path / "file.pth"
    numbers = {"iou": np.float64(0.5), "classes": np.arange(3)}
    torch.save({"model": {"a": torch.rand(2)}, "numbers": numbers}, file)
    assert read_released(file, "OVSegmentor").keys() == {"a"}
    torch.save({"model": {}, "config": Harmful(np.fromfile, str(file))}, file)
    with pytest.raises(
        ValueError, match=r"numpy\S*fromfile, for which a released checkpoint has no use"
    ):
        read_released(file, "OVSegmentor")


def test_damaged_and_foreign_files(tmp_path: Path, write):
    whole = write({"a": torch.rand(50, 40)}).read_bytes()
    bad = {
        "text": b"no checkpoint",
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "changed": whole.replace(b"}q", b"\xff\xff"),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="is no checkpoint of torch, or is damaged"):
            read_released(tmp_path / name, "OVSegmentor")
    for content in ({"state_dict": {}}, [1, 2], {"model": {"a": "text"}}, torch.rand(2)):
        torch.save(content, tmp_path / "other")
        with pytest.raises(ValueError, match="holds no tensors under the name 'model'"):
            read_released(tmp_path / "other", "OVSegmentor")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_released(tmp_path, "OVSegmentor")


@pytest.fixture
def made_up() -> dict[str, Tensor]:
    """The whole state of a tiny released model, second stage."""
    if not FOLDER.is_dir():
        pytest.skip("../shared/fixtures is not here")
    return weights(MADE_UP[1])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"img_encoder.norm.bias": None}, "missing: img_encoder.norm.bias$"),
        (
            {"img_encoder.patch_embed.proj.weight": None},
            r"missing: img_encoder.patch_embed.proj.weight$",
        ),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, "left over: a, b, c and 1 more$"),
        (
            {"img_encoder.norm.bias": 7, "x": 1},
            r"left over: x; misshapen: img_encoder.norm.bias \(7,\), not \(16,\)$",
        ),
        (
            {"img_encoder.layers.0.group_token": 5},
            r"misshapen: img_encoder.layers.0.group_token \(5,\)$",
        ),
        ({"img_encoder.pos_embed": 50}, r"misshapen: img_encoder.pos_embed"),
    ],
)
def test_tensors_that_do_not_fit(change, complaint: str, made_up, write, tmp_path: Path, tokenizer):
    state = made_up | {key: torch.zeros(size) for key, size in change.items() if size}
    state = {key: value for key, value in state.items() if change.get(key, 1) is not None}
    with pytest.raises(ValueError, match=complaint):
        convert_ovsegmentor(write(state), tmp_path / "model", tokenizer, num_text_heads=2)
    assert not (tmp_path / "model").exists()


def test_positions_may_have_a_batch_axis(made_up, converted):
    plain = made_up["img_encoder.pos_embed"]
    counters = {"img_projector.linear_hidden.1.num_batches_tracked": torch.tensor(9)}
    left_behind = {
        f"img_encoder_momentum.{key}": torch.rand(2) for key in ("pos_embed", "norm.weight")
    }
    method = converted(
        made_up | counters | left_behind | {"img_encoder.pos_embed": plain[None]}
    ).method
    assert torch.equal(method.image.pos_embed, plain)
    assert method.image_projection.norm.num_batches_tracked == 9


@pytest.mark.parametrize(("dim", "width"), [(16, 32), (32, 16)])
@torch.no_grad()
def test_image_and_text_may_have_other_widths(dim, width, made_up, write, tmp_path, tokenizer):
    """As ViT-S with RoBERTa in the released code: the decoder has the narrower width."""
    base = ovsegmentor_config(made_up, 8, 2)
    text = TextEncoderConfig(
        "roberta",
        base.text.architecture
        | {"hidden_size": width, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
        pooling="first",
    )
    method = replace(base, image=replace(base.image, dim=dim), text=text).build().eval()
    state = method.state_dict()
    released = {
        theirs: state[ours] for theirs, ours in official_names(state, base.image.depths).items()
    }
    wider, other = ("text", "img") if width > dim else ("img", "text")
    assert released[f"align_proj_{wider}.weight"].shape == (16, 32)
    assert f"align_proj_{other}.weight" not in released
    assert released["bridge_projector.linear_hidden.0.weight"].shape[1] == 16
    for key in released:
        if key.endswith((".linear_hidden.0.weight", ".linear_out.weight")):
            released[key] = released[key][..., None]

    convert_ovsegmentor(write(released), tmp_path / "model", tokenizer, num_text_heads=2)
    ours = loading.load(tmp_path / "model").method
    photo = torch.rand(1, 3, 32, 48)
    tokens = Tokens(torch.tensor([[2, 5, 9, 3]]), torch.ones(1, 4, dtype=torch.bool))
    close(ours.group(photo).embeddings, method.group(photo).embeddings)
    close(ours.encode_text(tokens), method.encode_text(tokens))
    groups, words = torch.rand(1, 8, dim), torch.rand(1, 4, width)
    close(ours.entity.decoder(words, groups), method.entity.decoder(words, groups))


def test_texts_of_roberta_end_before_its_positions_do(made_up, write, tmp_path, tokenizer):
    name = "text_encoder.transformer.embeddings.token_type_embeddings.weight"
    roberta = made_up | {name: made_up[name][:1]}
    model = read_ovsegmentor(write(roberta), tokenizer, num_text_heads=2)
    positions = len(made_up["text_encoder.transformer.embeddings.position_embeddings.weight"])
    assert model.tokenizer.max_length == positions - 2
    assert model.method.eval().encode_text(model.tokenizer(["a dog " * 50])).isfinite().all()
    with pytest.raises(ValueError, match=r"cuts texts at 16 tokens, the text encoder takes 14"):
        model.config.check_tokenizer(20, positions)


def test_other_bad_input(made_up, write, tmp_path: Path, tokenizer, tiny_tokenizer):
    file, out = write(made_up), tmp_path / "model"
    for heads, message in (
        ((7, 2), "7 attention heads do not divide the 16"),
        ((8, 12), "12 attention .* the text"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_ovsegmentor(file, out, tokenizer, *heads)
    tiny_tokenizer.save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"the tokenizer has .* tokens, the text encoder 50"):
        convert_ovsegmentor(file, out, str(tmp_path), num_text_heads=2)
    out.mkdir()
    with pytest.raises(FileExistsError, match="exists: name a folder that is yet to be made"):
        convert_ovsegmentor(file, out, tokenizer, num_text_heads=2)


def test_command(made_up, write, tmp_path: Path, tokenizer, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "model"
    words = [
        "convert",
        "ovsegmentor",
        str(write(made_up)),
        str(out),
        "--tokenizer",
        tokenizer,
        "--text-heads",
        "2",
    ]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0 and f"--model {out}" in capsys.readouterr().out
    assert loading.load(out).name == "ovsegmentor"
    with pytest.raises(SystemExit) as stop:
        main(words)
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and "exists" in lines[0]

"""A stranger's run.json and tokenizer.json: one line for each, no memory, nothing read from
elsewhere.
"""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from maskfree.cli import main
from maskfree.hub import loading

MOST_MEGABYTES = 150  # that a refusal may add to the memory in use


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def architecture(side: str, **values: Any) -> Any:
    return lambda run: run["config"][side]["architecture"].update(values)


def config(**values: Any) -> Any:
    return lambda run: run["config"].update(values)


def timm(**values: Any) -> Any:
    encoder = {"family": "timm", "architecture": {"name": "resnet18", **values}}
    return lambda run: run["config"]["image"].update(encoder)


CHANGES: dict[str, Any] = {
    "embed_dim 0": config(embed_dim=0),
    "embed_dim -1": config(embed_dim=-1),
    "embed_dim true": config(embed_dim=True),
    "embed_dim 1e12": config(embed_dim=1e12),
    "embed_dim 10**12": config(embed_dim=10**12),
    "embed_dim large": config(embed_dim=65536),
    "hidden_size 0": architecture("text", hidden_size=0),
    "hidden_size -1": architecture("text", hidden_size=-1),
    "hidden_size true": architecture("text", hidden_size=True),
    "hidden_size text": architecture("text", hidden_size="12"),
    "hidden_size list": architecture("text", hidden_size=[12]),
    "hidden_size 10**12": architecture("text", hidden_size=10**12),
    "heads do not divide": architecture("text", num_attention_heads=7),
    "heads 0": architecture("text", num_attention_heads=0),
    "million layers": architecture("text", num_hidden_layers=1_000_000),
    "layers -1": architecture("text", num_hidden_layers=-1),
    "layers 10**18": architecture("text", num_hidden_layers=10**18),
    "huge vocabulary": architecture("text", vocab_size=2**20),
    "vocabulary 10**12": architecture("text", vocab_size=10**12),
    "vocabulary 1": architecture("text", vocab_size=1),
    "activation": architecture("text", hidden_act="os.system"),
    "image activation": architecture("image", hidden_act="nonsense"),
    "unknown field": architecture("text", attn_implementation="someone/kernel"),
    "padding beyond the table": architecture("text", pad_token_id=999_999),
    "long texts": architecture("text", max_position_embeddings=2**20),
    "short texts": architecture("text", max_position_embeddings=1),
    "output_stride 0": lambda run: run["config"]["image"].update(output_stride=0),
    "output_stride 3": lambda run: run["config"]["image"].update(output_stride=3),
    "multiplier nan": architecture("image", depth_multiplier="NAN"),
    "multiplier large": architecture("image", depth_multiplier=1e9),
    "family": lambda run: run["config"]["image"].update(family="nonsense"),
    "many layers of another family": lambda run: run["config"]["image"].update(
        family="dinov2", architecture={"num_hidden_layers": 10**6}, output_stride=None
    ),
    "presence nan": lambda run: run.update(inference={"class_prior": "NAN"}),
    "batch_size": lambda run: run.update(inference={"batch_size": 10**9}),
    "score": lambda run: run.update(inference={"score": "nonsense"}),
    "many templates": lambda run: run.update(templates=["{}"] * 100_000),
    "long template": lambda run: run.update(templates=["{}" + "x" * 10**6]),
    "name is a path": lambda run: run.update(name="../../outside"),
    "name moves the cursor": lambda run: run.update(name="\x1b[2J"),
    "tokenizer elsewhere": config(tokenizer="someone/else"),
    "weights elsewhere": lambda run: run["config"]["text"].update(weights="/etc"),
    "million clusters": lambda run: run["config"]["cluster"].update(num_clusters=10**6),
    "text for a number": lambda run: run["config"]["cross"].update(weight="1"),
    "weight nan": lambda run: run["config"]["cross"].update(weight="NAN"),
    "timm of the hub": timm(name="hf-hub:someone/evil", pretrained=True, cache_dir="/tmp/evil"),
    "timm of a folder": timm(name="local-dir:/tmp/evil"),
    "timm pretrained": timm(pretrained=True),
    "timm file": timm(checkpoint_path="/tmp/evil.pth"),
    "timm address": timm(pretrained_cfg_overlay="x"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_run_file(
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
):
    reached = []
    monkeypatch.setitem(__import__("sys").modules, "timm", FakeTimm(reached))
    edit(tiny_checkpoint / "run.json", CHANGES[name])
    path = tiny_checkpoint / "run.json"
    path.write_text(path.read_text().replace('"NAN"', "NaN"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SystemExit) as caught:
        main(
            [
                "segment",
                str(tiny_checkpoint / "no.png"),
                "--words",
                "sky",
                "--model",
                str(tiny_checkpoint),
            ]
        )
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.startswith("maskfree: error: ") and error.count("\n") == 1, error
    assert str(tiny_checkpoint) in error and "no.png" not in error, error
    assert not reached, "nothing is asked of timm"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MEGABYTES


class FakeTimm:
    """In timm's place; notes what it is asked for."""

    def __init__(self, reached: list[Any]):
        self.create_model = lambda *arguments, **named: reached.append((arguments, named))


def vocabulary(content: dict[str, Any]) -> dict[str, int]:
    return content["model"]["vocab"]


def beyond(content: dict[str, Any]) -> None:
    words = vocabulary(content)
    words[next(iter(sorted(words, key=words.get)))] = 10**6


TOKENIZERS: dict[str, Any] = {
    "id beyond the table": beyond,
    "special id beyond the table": lambda content: content.update(
        post_processor={
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [10**6], "tokens": ["[CLS]"]}},
        }
    ),
    "padding id beyond the table": lambda content: content.update(
        padding={
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 10**6,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
    ),
    "long texts": lambda content: content["truncation"].update(max_length=10**9),
    "replacements": lambda content: content.update(
        normalizer={
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"}]
            * 20,
        }
    ),
    "no model": lambda content: content.pop("model"),
    "unknown model": lambda content: content["model"].update(type="os.system"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizer_file(tiny_checkpoint: Path, name: str):
    edit(tiny_checkpoint / "tokenizer.json", TOKENIZERS[name])
    with pytest.raises(ValueError, match=r"tokenizer\.json") as caught:
        loading.load(tiny_checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"model": ' * 50_000, "\ufeff", "{}", "null", "\0" * 100]
)
def test_tokenizer_file_that_is_none(tiny_checkpoint: Path, content: str):
    (tiny_checkpoint / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json") as caught:
        loading.load(tiny_checkpoint)
    assert "\n" not in str(caught.value)


def test_weights_with_a_large_header(tiny_checkpoint: Path):
    (tiny_checkpoint / "weights.safetensors").write_bytes(
        (2**30).to_bytes(8, "little") + b"{" * 100
    )
    with pytest.raises(ValueError, match=r"weights\.safetensors .*header of 1,073,741,824 bytes"):
        loading.load(tiny_checkpoint)

"""Options that are not given change nothing of the model's own settings."""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from maskfree.cli import COMMANDS, main
from maskfree.distillation import clips4, self_training
from maskfree.distillation.clips4_config import DistillConfig
from maskfree.distillation.prototype_config import PrototypeConfig
from maskfree.hub import checkpoint, loading
from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.methods.clips4.objectives_config import SemanticConsistencyConfig
from tiny import tiny_vilseg_config

OWN = Inference(
    vote="slic",
    grouping="kmeans",
    side_px=80,
    max_whole_px=72,
    window_px=48,
    stride_px=40,
    batch_size=3,
    smooth=3,
    class_prior=0.5,
    class_level=0.2,
    refine="pamr",
)
"""Nothing of it is the default."""

FEW = ("--workers", "0", "--crop-px", "32")
RUNS = {
    "segment": ("photos/a.png", "--words", "dog", "grass"),
    "label": ("photos", "--words", "dog", "grass"),
    "track": ("photos", "--words", "dog", "grass"),
    "search": ("dog", "photos"),
    "prepare teacher": ("photos", "--out", "maps"),
    "distill pseudo-labels": ("photos", "--words", "dog", "grass", *FEW),
    "distill clips4": (
        "photos",
        "--words",
        "dog",
        "grass",
        "--segments.kind",
        "felzenszwalb",
        "--top",
        "2",
        *FEW,
    ),
    "evaluate": ("folder", "--data", "data"),
    "evaluate knn": ("folder", "--data", "data"),
    "evaluate linear": ("folder", "--data", "data", "--epochs", "1"),
    "evaluate tracking": ("davis",),
    "evaluate retrieval": ("pairs.tar",),
}
"""A call of each command that runs a model, with no setting of the model."""

BY_PURPOSE = {
    "track": {"side_px", "class_prior", "class_level"},
    "evaluate tracking": {"side_px"},
    "distill pseudo-labels": {"score", "refine"},
    "evaluate": {field.name for field in dataclasses.fields(Inference)}
    - {"batch_size", "precision"},
}
"""What a command sets whatever the model says.

Tracking needs fine frames and takes the class prior of the clip, pseudo labels the probabilities of
patches, and a protocol holds for all models.
"""

WITHOUT_A_MODEL = {
    *(
        "prepare",
        "train",
        "compare",
        "datasets",
        "convert",
        "export",
        "models",
        "download",
        "serve",  # tests/serve: its settings come with requests
    ),
}


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Callable[..., Image.Image]
) -> Path:
    """A folder with photos, a benchmark, a clip with its first masks and a shard, in which the
    commands run.
    """
    monkeypatch.chdir(tmp_path)
    ids = Image.fromarray(np.indices((57, 83)).sum(0).astype(np.uint8) // 80)
    places = {"photos": photo(), "data/images": photo(), "data/labels": ids}
    places |= {"davis/JPEGImages/480p/one": photo(), "davis/Annotations/480p/one": ids}
    for place, picture in places.items():
        (tmp_path / place).mkdir(parents=True)
        for name in "ab":
            picture.save(tmp_path / place / f"{name}.{'jpg' if 'JPEG' in place else 'png'}")
    (tmp_path / "data" / "classes.txt").write_text("dog\ngrass\n")
    with tarfile.open(tmp_path / "pairs.tar", "w") as shard:
        shard.add(tmp_path / "photos" / "a.png", "a.png")
        shard.add(tmp_path / "data" / "classes.txt", "a.txt")
    return tmp_path


@pytest.fixture
def model(tmp_path: Path, tiny_vilseg, tiny_tokenizer) -> Path:
    """A checkpoint whose own settings are `OWN`."""
    about = {"name": "own", "templates": ["a photo of a {}"], "inference": dataclasses.asdict(OWN)}
    config = tiny_vilseg_config(vision=None).for_inference()
    checkpoint.save(tmp_path / "own", tiny_vilseg, config, tiny_tokenizer, about)
    return tmp_path / "own"


def settings_of_segmenters(monkeypatch: pytest.MonkeyPatch) -> list[Inference]:
    """Note the settings of every segmenter that is made from here on."""
    made: list[Inference] = []
    change = Segmenter.with_inference

    def note(self: Segmenter, inference: Inference) -> Segmenter:
        made.append(inference)
        return change(self, inference)

    monkeypatch.setattr(Segmenter, "with_inference", note)
    return made


def test_the_test_knows_every_command():
    assert {name.split()[0] for name in RUNS} | WITHOUT_A_MODEL == set(COMMANDS)
    defaults = Inference()
    same = {name for name, value in vars(OWN).items() if value == getattr(defaults, name)}
    assert same == {
        "precision",
        "score",
        "logit_scale",
        "synonyms",
    }  # which would not go with the others


@pytest.mark.parametrize("command", RUNS)
def test_options_that_are_not_given_change_nothing(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    monkeypatch.setattr(self_training, "fit", lambda *_, **__: 0)
    monkeypatch.setattr(clips4, "fit", lambda *_, **__: 0)
    assert loading.load(model).inference == OWN
    made = settings_of_segmenters(monkeypatch)
    with pytest.raises(SystemExit) as raised:
        main([*command.split(), *RUNS[command], "--model", str(model)])
    assert raised.value.code in (0, 130), command
    assert made, "no segmenter was made, or not by with_inference"
    for inference in made:
        changed = {name for name, value in vars(inference).items() if value != getattr(OWN, name)}
        assert changed <= BY_PURPOSE.get(command, set())


@pytest.mark.parametrize("command", RUNS)
def test_every_command_takes_a_method_and_a_source(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
):
    """Up to the model: it is read as METHOD:SOURCE, and offline nothing else is looked for."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    for name, said in (
        ("sclip:owner/model", "`maskfree download sclip:owner/model` fetches it"),
        ("sclips:owner/model", "there is no method 'sclips': one of "),
    ):
        with pytest.raises(SystemExit) as raised:
            main([*command.split(), *RUNS[command], "--model", name, "--offline"])
        errors = capsys.readouterr().err
        assert raised.value.code == 2 and errors.count("\n") == 1 and said in errors, command


def test_options_that_are_given_count(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    made = settings_of_segmenters(monkeypatch)
    given = ("--side-px", "64", "--batch-size", "2", "--refine", "none")
    with pytest.raises(SystemExit) as raised:
        main(["segment", *RUNS["segment"], "--model", str(model), *given])
    assert raised.value.code == 0
    assert made[-1] == dataclasses.replace(OWN, side_px=64, batch_size=2, refine="none")


def test_the_commands_own_defaults_are_those_of_python():
    assert DistillConfig().top == PrototypeConfig().top
    assert DistillConfig().num_unknown == SemanticConsistencyConfig().num_unknown

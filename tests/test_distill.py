"""From photos without labels to a student: whole ways in seconds, going on after a stop, and bad
input.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.testing import assert_close

from maskfree.distillation.clips4 import distill
from maskfree.distillation.clips4_config import DistillConfig
from maskfree.distillation.student_config import StudentRunConfig
from maskfree.engine.config import TrainConfig
from maskfree.hub import loading
from maskfree.method import Method
from maskfree.methods.clips4.config import CLIPS4Config
from maskfree.nn.pyramid_pooling import PyramidPooling
from maskfree.progress import Watch, unwatched
from maskfree.recipes.clips4 import clips4_pocket
from maskfree.regions.region_maps import SegmentConfig
from maskfree.text.tokenize import Tokenizer
from tiny import TINY_IMAGE, tiny_groupvit_config, tiny_ovsegmentor_config, tiny_student_config

pytest.importorskip("skimage")
WORDS = ("grass", "sea/water", "red sofa")
TRAIN = TrainConfig(
    steps=3,
    batch_size=2,
    warm_up_steps=1,
    log_every=1,
    save_every=2,
    accelerator="cpu",
    devices="1",
)
SMALL = DistillConfig(
    student=StudentRunConfig(TRAIN, side_px=48, crop_px=32, workers=0),
    segments=SegmentConfig(kind="felzenszwalb", max_regions=9),
    top=2,
    num_unknown=5,
)
Checkpoint = Callable[[str, Any], Path]


def changed(settings: DistillConfig, **changes: Any) -> DistillConfig:
    """Settings with changes of their own fields and of those of the student."""
    own = {name: value for name, value in changes.items() if hasattr(settings, name)}
    others = {name: value for name, value in changes.items() if name not in own}
    return replace(settings, student=replace(settings.student, **others), **own)


STILL = changed(SMALL, train=replace(TRAIN, steps=1, learning_rate=0.0))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos of squares in a folder of folders, two of one name."""
    rng = np.random.default_rng(0)
    for name, (width, height) in {
        "a/x": (83, 57),
        "a/y": (40, 90),
        "b/x": (64, 64),
        "b/z": (120, 50),
    }.items():
        squares = (
            rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), np.uint8)
            .repeat(16, 0)
            .repeat(16, 1)
        )
        place = tmp_path / "photos" / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(squares[:height, :width]).save(place)
    return tmp_path / "photos"


@pytest.fixture
def clip(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Path:
    """A tiny CLIP as transformers saves it."""
    layers: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    config = transformers.CLIPConfig(
        text_config=layers
        | {"vocab_size": 400, "num_attention_heads": 3, "max_position_embeddings": 32},
        vision_config=layers | {"num_attention_heads": 2, "image_size": 32, "patch_size": 16},
        projection_dim=18,
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    tiny_tokenizer.save(tmp_path / "clip" / "tokenizer.json")
    return tmp_path / "clip"


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    """Weights of an image encoder."""
    config = transformers.MobileNetV2Config(**TINY_IMAGE.architecture)  # pyright: ignore[reportArgumentType]
    transformers.MobileNetV2Model(config, add_pooling_layer=False).save_pretrained(
        tmp_path / "encoder"
    )
    return str(tmp_path / "encoder")


def run(
    model: Path, photos: Path, out: Path, settings: DistillConfig = SMALL, **changes: Any
) -> Path | None:
    return distill(model, WORDS, [str(photos)], out, changed(settings, **changes))


def losses(out: Path) -> list:
    return [json.loads(row)["loss"] for row in (out / "metrics.jsonl").read_text().splitlines()]


def texts(method: Method, tokenizer: Any) -> torch.Tensor:
    return method.encode_text(tokenizer(["a dog", "the green grass"]))


def test_from_photos_to_a_model_that_takes_any_words(
    tmp_path: Path, tiny_checkpoint: Path, photos: Path
):
    out = tmp_path / "run"
    assert run(tiny_checkpoint, photos, out) == out / "model"
    teacher, student = loading.load(tiny_checkpoint), loading.load(out / "model")
    assert student.name == "tiny-student" and student.templates == teacher.templates
    assert student.inference == replace(teacher.inference, side_px=48)
    assert_close(texts(student.method, student.tokenizer), texts(teacher.method, teacher.tokenizer))
    result = student.with_words(["sky", "wall", "dog", "cat"])(photos / "a" / "x.png")
    assert result.labels.shape == (57, 83)
    assert {"contrast", "embedding", "semantic", "unknown"} < losses(out)[0].keys() and len(
        losses(out)
    ) == 3
    assert json.loads((out / "model" / "run.json").read_text())["method"] == "CLIPS4Config"

    def times() -> dict[Path, int]:
        made = [path for name in ("segments", "teacher") for path in (out / name).iterdir()]
        return {path: path.stat().st_mtime_ns for path in (*made, out / "prototypes.safetensors")}

    before = times()
    assert len(before) == 2 * (4 + 1) + 1
    assert run(tiny_checkpoint, photos, out) == out / "model"  # nothing is left to do
    changed = {path for path, time in times().items() if before[path] != time}
    assert changed <= {out / "segments" / "segments.json"} and len(losses(out)) == 3


def test_a_student_starts_as_its_teacher(tmp_path: Path, tiny_checkpoint: Path, photos: Path):
    student = loading.load(run(tiny_checkpoint, photos, tmp_path / "run", STILL) or "")
    images = torch.rand(2, 3, 48, 64)
    assert_close(student.method.image(images), loading.load(tiny_checkpoint).method.image(images))


def test_a_student_of_a_student_keeps_its_encoder(tmp_path: Path, saved: Checkpoint, photos: Path):
    first = saved("first", tiny_student_config())
    student = loading.load(run(first, photos, tmp_path / "run", STILL) or "")
    images = torch.rand(2, 3, 48, 64)
    assert_close(
        student.method.image.encoder(images), loading.load(first).method.image.encoder(images)
    )
    assert isinstance(
        student.method.image.projection, PyramidPooling
    )  # DeepLab's head is not taken over


def test_another_encoder_gets_a_pyramid_and_the_teachers_texts(
    tmp_path: Path, tiny_checkpoint: Path, photos: Path, encoder: str
):
    student = loading.load(
        run(tiny_checkpoint, photos, tmp_path / "run", STILL, weights=encoder) or ""
    )
    teacher = loading.load(tiny_checkpoint)
    assert_close(texts(student.method, student.tokenizer), texts(teacher.method, teacher.tokenizer))
    images = torch.rand(2, 3, 48, 64)
    own = replace(TINY_IMAGE, weights=encoder).build().eval()
    assert_close(
        student.method.image.encoder(images), own(images), atol=1e-4, rtol=1e-3
    )  # norms are folded
    assert isinstance(student.method.image.projection, PyramidPooling)


def test_any_clip_teaches(tmp_path: Path, clip: Path, photos: Path, encoder: str):
    student = loading.load(run(clip, photos, tmp_path / "run", weights=encoder) or "")
    teacher = loading.load(clip)
    assert student.name == "clip-student" and student.templates == teacher.templates
    assert_close(texts(student.method, student.tokenizer), texts(teacher.method, teacher.tokenizer))
    assert student.with_words(["sky", "dog"])(photos / "b" / "z.png").labels.shape == (50, 120)


def test_a_teacher_with_groups_teaches_by_its_texts(
    tmp_path: Path, saved: Checkpoint, photos: Path, encoder: str
):
    model = saved("grouping", tiny_ovsegmentor_config())
    student = loading.load(run(model, photos, tmp_path / "run", weights=encoder) or "")
    teacher = loading.load(model)
    assert_close(texts(student.method, student.tokenizer), texts(teacher.method, teacher.tokenizer))
    assert student.inference.score == "cosine" and student.inference.side_px == 48


@pytest.mark.parametrize(
    "config", [tiny_ovsegmentor_config(entity=None, masks=None), "clip"], ids=["groups", "clip"]
)
def test_an_image_side_that_no_student_can_have_needs_weights(
    tmp_path: Path, saved: Checkpoint, clip: Path, photos: Path, config: Any
):
    model = clip if config == "clip" else saved("grouping", config)
    with pytest.raises(ValueError, match=r"cannot have the image side of .*--weights"):
        run(model, photos, tmp_path / "run")


def test_a_teacher_without_a_text_side_is_refused(
    tmp_path: Path, saved: Checkpoint, photos: Path, encoder: str
):
    model = saved("groups", tiny_groupvit_config())
    with pytest.raises(
        ValueError, match="groups cannot teach: a student cannot take the text side of a GroupViT"
    ):
        run(model, photos, tmp_path / "run", weights=encoder)
    with pytest.raises(ValueError, match="groupvit cannot teach"):
        distill("groupvit", WORDS, [str(photos)], tmp_path / "run", changed(SMALL, weights=encoder))
    assert not (tmp_path / "run").exists()


def test_photos_of_shards(tmp_path: Path, tiny_checkpoint: Path, photos: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, photo in enumerate(sorted(photos.rglob("*.png"))):
            for suffix, content in (("png", photo.read_bytes()), ("txt", b"a dog")):
                info = tarfile.TarInfo(f"{number}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    assert run(tiny_checkpoint, tmp_path / "a.tar", tmp_path / "run") == tmp_path / "run" / "model"
    assert not (tmp_path / "run" / "photos").exists()


def test_broken_photos_are_left_out(tmp_path: Path, tiny_checkpoint: Path, photos: Path):
    (photos / "a" / "y.png").write_bytes(b"no photo")
    assert run(tiny_checkpoint, photos, tmp_path / "run") == tmp_path / "run" / "model"
    assert len(list((tmp_path / "run" / "teacher").glob("*.safetensors"))) == 3


def test_a_run_that_was_stopped_at_every_step_goes_on(
    tmp_path: Path, tiny_checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    def train(name: str, watch: Watch = unwatched) -> Path | None:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(
            tmp_path / name
        )  # the photos' paths are their keys, from which the augmentation follows
        return distill(tiny_checkpoint, WORDS, [str(photos)], Path("run"), SMALL, watch)

    def interrupting(
        items: Iterable, name: str = "", total: int | None = None, *, wanted: str
    ) -> Iterable:
        for number, item in enumerate(items):
            if name == wanted and number == 2:
                raise KeyboardInterrupt
            yield item

    for step in ("segments", "looking", "clustering"):
        with pytest.raises(KeyboardInterrupt):
            train("stopped", partial(interrupting, wanted=step))
        assert not (Path("run") / "prototypes.safetensors").exists()
    with monkeypatch.context() as patched:
        patched.setattr("maskfree.engine.train.any_process", lambda fabric: lambda here: True)
        assert train("stopped") is None
    assert len(losses(Path("run"))) == 1
    assert train("stopped") == Path("run/model")
    train("whole")
    assert losses(Path("run")) == losses(tmp_path / "stopped" / "run")
    first, second = (
        tmp_path / name / "run" / "model" / "weights.safetensors" for name in ("stopped", "whole")
    )
    assert first.read_bytes() == second.read_bytes()


def test_another_run_in_the_same_folder_is_refused(
    tmp_path: Path, tiny_checkpoint: Path, photos: Path
):
    out = tmp_path / "run"
    run(tiny_checkpoint, photos, out, STILL)
    with pytest.raises(
        ValueError, match=r"run was begun with another settings\.num_unknown: give another folder"
    ):
        run(tiny_checkpoint, photos, out, STILL, num_unknown=4)
    with pytest.raises(ValueError, match="with another words"):
        distill(tiny_checkpoint, ["sky"], [str(photos)], out, STILL)
    assert (
        run(tiny_checkpoint, photos, out, STILL, train=replace(STILL.student.train, log_every=7))
        == out / "model"
    )
    Image.new("RGB", (40, 40)).save(photos / "a" / "new.png")
    with pytest.raises(ValueError, match=r"not among the photos|link to another photo"):
        run(tiny_checkpoint, photos, out, STILL)
    (out / "distill.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        run(tiny_checkpoint, photos, out, STILL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top": 0}, "top is 0, must be at least 1"),
        ({"crop_px": 40}, "crop_px 40 is not whole patches of 16 px"),
        ({"num_unknown": -1}, "num_unknown is -1"),
        ({"train": replace(TRAIN, steps=0)}, r"train\.steps is 0"),
        ({"weights": "./nowhere"}, "nowhere"),
        ({"side_px": 0}, "side_px is 0"),
    ],
)
def test_bad_settings_are_said_before_any_work(
    tmp_path: Path, tiny_checkpoint: Path, photos: Path, changes: dict, message: str
):
    with pytest.raises((ValueError, OSError), match=message):
        run(tiny_checkpoint, photos, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_bad_input_is_said_before_any_work(tmp_path: Path, tiny_checkpoint: Path, photos: Path):
    (tmp_path / "empty").mkdir()
    for folder, message in (("empty", "holds no photo"), ("nowhere", "no shard")):
        with pytest.raises(FileNotFoundError, match=message):
            run(tiny_checkpoint, tmp_path / folder, tmp_path / "run")
    with pytest.raises(ValueError, match="no words were given"):
        distill(tiny_checkpoint, [], [str(photos)], tmp_path / "run", SMALL)
    with pytest.raises(FileNotFoundError, match="is unknown"):
        run(tmp_path / "no model", photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"top": 5000}, {"num_unknown": 5000}])
def test_fewer_segments_than_prototypes(
    tmp_path: Path, tiny_checkpoint: Path, photos: Path, changes: dict
):
    with pytest.raises(ValueError, match=r"5000 .*there are"):
        run(tiny_checkpoint, photos, tmp_path / "run", **changes)


def test_defaults_are_those_of_the_recipe():
    recipe, settings = clips4_pocket(), DistillConfig()
    assert isinstance(recipe.method, CLIPS4Config) and recipe.method.semantic
    assert settings.student.train == replace(recipe.train, devices="1")
    assert settings.student.crop_px == recipe.method.views.side_px
    assert settings.num_unknown == recipe.method.semantic.num_unknown

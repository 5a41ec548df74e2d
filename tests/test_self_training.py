from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from maskfree.distillation.pseudo_labels import link, pseudo_label
from maskfree.distillation.self_training import self_train, start
from maskfree.distillation.self_training_config import SelfTrainConfig
from maskfree.distillation.student_config import StudentRunConfig
from maskfree.engine.config import TrainConfig
from maskfree.hub import checkpoint, loading
from maskfree.inference.config import Inference
from maskfree.losses.pseudo_labels import confidence
from maskfree.methods.student.config import StudentConfig
from maskfree.methods.student.model import Student
from maskfree.methods.vilseg.config import ClusterConfig
from tiny import (
    tiny_clips4_config,
    tiny_groupvit_config,
    tiny_ovsegmentor_config,
    tiny_vilseg_config,
)

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
SMALL = SelfTrainConfig(
    StudentRunConfig(TRAIN, side_px=48, crop_px=32, workers=0), smooth=1, class_prior=0.0
)


@pytest.fixture
def photos(tmp_path, photo) -> list[Path]:
    """Four photos, two of one name."""
    places = [
        tmp_path / "a" / "x.jpg",
        tmp_path / "a" / "y.png",
        tmp_path / "b" / "x.jpg",
        tmp_path / "b" / "z.jpg",
    ]
    for place, size in zip(places, [(83, 57), (40, 90), (64, 64), (120, 50)], strict=True):
        place.parent.mkdir(exist_ok=True)
        photo(size).save(place)
    return places


@pytest.fixture
def teacher(tiny_checkpoint) -> loading.Segmenter:
    segmenter = loading.load(tiny_checkpoint)
    return segmenter.with_inference(replace(segmenter.inference, side_px=48)).with_words(WORDS)


class Watched:
    def __init__(self):
        self.photos = []

    def __call__(self, photos, name="", total=None):
        self.photos = list(photos)
        return photos


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(Image.open(path))
    return pairs[..., 0], pairs[..., 1]


def test_labels_and_probabilities_are_the_teachers(tmp_path, teacher, photos):
    links = link(photos, tmp_path / "photos")
    histogram = pseudo_label(teacher, links, tmp_path / "labels")
    softly = teacher.with_inference(replace(teacher.inference, score="softmax"))
    expected = np.zeros((3, 256), int)
    for place in links:
        labels, sure = read(tmp_path / "labels" / f"{place.stem}.png")
        result = softly(place)
        assert np.array_equal(labels, result.labels) and np.array_equal(
            sure, confidence(result.scores)
        )
        np.add.at(expected, (labels, sure), 1)
    assert np.array_equal(histogram, expected) and len(set(map(int, labels.flat))) > 1


def test_only_missing_labels_are_made_again(tmp_path, teacher, photos):
    links, watch = link(photos, tmp_path / "photos"), Watched()
    first = pseudo_label(teacher, links, tmp_path / "labels", watch)
    assert watch.photos == list(links)
    gone = tmp_path / "labels" / f"{links[2].stem}.png"
    content = gone.read_bytes()
    gone.unlink()
    again = pseudo_label(teacher, link(photos, tmp_path / "photos"), tmp_path / "labels", watch)
    assert watch.photos == [links[2]]
    assert np.array_equal(first, again) and gone.read_bytes() == content


def test_labels_of_other_words_or_settings_are_refused(tmp_path, teacher, photos):
    links = link(photos, tmp_path / "photos")
    pseudo_label(teacher, links, tmp_path / "labels")
    with pytest.raises(ValueError, match="begun with another words"):
        pseudo_label(teacher.with_words(["sky", "sea"], "none"), links, tmp_path / "labels")
    with pytest.raises(ValueError, match=r"another inference\.side_px"):
        other = teacher.with_inference(replace(teacher.inference, side_px=64))
        pseudo_label(other, links, tmp_path / "labels")
    with pytest.raises(ValueError, match="another photos"):
        pseudo_label(teacher, links[:2], tmp_path / "labels")
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        pseudo_label(teacher, links, tmp_path / "labels")


def test_what_cannot_be_labeled_is_said(tmp_path, teacher, photos, caplog):
    with pytest.raises(ValueError, match="same stem"):
        pseudo_label(teacher, photos, tmp_path / "labels")
    with pytest.raises(ValueError, match="no background rule"):
        pseudo_label(teacher.with_words(WORDS, "threshold:0.1"), photos[:1], tmp_path / "labels")
    photos[0].write_bytes(b"no photo")
    histogram = pseudo_label(teacher, photos[:2], tmp_path / "labels")
    assert histogram.sum() == 40 * 90 and "skipped" in caplog.text


def test_links_have_different_stems_and_stay(tmp_path, photos):
    links = link(photos, tmp_path / "photos")
    assert [each.name for each in links] == [
        "000000-x.jpg",
        "000001-y.png",
        "000002-x.jpg",
        "000003-z.jpg",
    ]
    assert [each.resolve() for each in links] == [photo.resolve() for photo in photos]
    assert link(photos, tmp_path / "photos") == links
    with pytest.raises(ValueError, match=r"000003-z\.jpg, which is not among"):
        link(photos[:3], tmp_path / "photos")
    with pytest.raises(ValueError, match="another photo"):
        link([photos[2], *photos[1:]], tmp_path / "photos")
    with pytest.raises(FileNotFoundError, match="is missing"):
        link([tmp_path / "none.jpg"], tmp_path / "others")
    with pytest.raises(ValueError, match="no photos"):
        link([], tmp_path / "others")


def started(config: StudentConfig, folder: Path) -> Student:
    student = config.build()
    assert checkpoint.start_from(folder, student) == []
    return student


def test_student_starts_as_its_teacher(tmp_path, tiny_checkpoint, teacher):
    config = start(tiny_checkpoint, teacher, SMALL, tmp_path / "start")
    student, words = started(config, tmp_path / "start"), ["a dog", "the green grass"]
    assert_close(
        student.encode_text(teacher.tokenizer(words)),
        teacher.method.encode_text(teacher.tokenizer(words)),
    )
    assert torch.equal(student.phrases, teacher.embeddings) and config.synonyms == (1, 2, 1)
    images = torch.rand(1, 3, 48, 32)
    # loading.load has folded the teacher's batch norms into its convolutions
    assert_close(
        student.image.encoder(images), teacher.method.image.encoder(images), atol=1e-4, rtol=1e-3
    )
    before = (tmp_path / "start" / "weights.safetensors").stat().st_mtime_ns
    assert start(tiny_checkpoint, teacher, SMALL, tmp_path / "start") == config
    assert (tmp_path / "start" / "weights.safetensors").stat().st_mtime_ns == before


def test_a_correction_starts_with_the_teachers_answers(tmp_path, tiny_checkpoint, teacher):
    images = torch.rand(2, 3, 48, 64)
    expected = teacher.method.image(images)
    student = started(
        start(tiny_checkpoint, teacher, SMALL, tmp_path / "start"), tmp_path / "start"
    )
    assert_close(student.image(images), expected, atol=1e-4, rtol=1e-3)
    anew = start(tiny_checkpoint, teacher, replace(SMALL, correct=False), tmp_path / "anew")
    assert anew.known is None and not torch.allclose(
        anew.build().image(images), expected, atol=1e-2
    )


def test_a_student_keeps_the_online_head(tmp_path, saved, photos):
    head = ClusterConfig(num_clusters=6, standardized=True)
    folder = saved("grouped", tiny_vilseg_config(vision=None, cluster=head, assignment="soft"))
    taught = loading.load(folder)
    spread_head(taught.method.cluster.head)
    teacher = taught.with_words(WORDS).with_inference(Inference(side_px=48))
    config = start(folder, teacher, SMALL, tmp_path / "s")
    assert config.num_clusters == 6
    student = started(config, tmp_path / "s")
    loaded = checkpoint.weight_names(tmp_path / "s")
    assert {"clusters.convolution.weight", "clusters.statistics.mean"} <= set(loaded)
    images, classes = torch.rand(2, 3, 48, 64), torch.nn.functional.normalize(torch.randn(7, 18))
    student.clusters.load_state_dict(taught.method.cluster.head.state_dict())
    for grouping in ("clusters", "soft clusters", "kmeans", "pixels"):
        scores = student.grouped(grouping).segment(images, classes)
        expected = taught.method.grouped(grouping).segment(images, classes)
        assert_close(scores, expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(student.segment(images, classes), scores)

    out = self_train(folder, WORDS, photos, tmp_path / "run", SMALL)
    before = loading.load(folder).method.cluster.head.state_dict()
    assert_equal(loading.load(out).method.clusters.state_dict(), before)


def test_a_head_of_raw_embeddings_is_not_kept(tmp_path, tiny_checkpoint, teacher):
    student = started(
        start(tiny_checkpoint, teacher, SMALL, tmp_path / "start"), tmp_path / "start"
    )
    with pytest.raises(ValueError, match="grouping by clusters needs the online clustering head"):
        student.grouped("clusters")


def spread_head(head):
    """Many clusters occur."""
    torch.nn.init.normal_(head.convolution.weight)


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert_close(first[name], second[name])


def test_from_photos_to_a_model_that_takes_any_words(tmp_path, tiny_checkpoint, photos):
    out = tmp_path / "run"
    assert self_train(tiny_checkpoint, WORDS, photos, out, SMALL) == out / "model"
    student = loading.load(out / "model")
    assert student.name == "tiny-student" and student.templates == ("a photo of a {}",)
    result = student.with_words(["sky", "wall", "dog", "cat"])(photos[0])
    assert result.labels.shape == (57, 83)
    run = json.loads((out / "model" / "run.json").read_text())
    assert run["config"]["synonyms"] == []
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 3

    labels = {path: path.stat().st_mtime_ns for path in (out / "labels").iterdir()}
    assert (
        self_train(tiny_checkpoint, WORDS, photos, out, SMALL) == out / "model"
    )  # nothing is left to do
    assert labels == {path: path.stat().st_mtime_ns for path in (out / "labels").iterdir()}
    with pytest.raises(ValueError, match=r"another method\.thresholds"):
        self_train(tiny_checkpoint, WORDS, photos, out, replace(SMALL, keep=0.01))


def test_a_student_can_teach_the_next(tmp_path, tiny_checkpoint, photos):
    first = self_train(tiny_checkpoint, WORDS, photos, tmp_path / "one", SMALL)
    second = self_train(first, WORDS, photos, tmp_path / "two", replace(SMALL, keep=0.3))
    assert loading.load(second).name == "tiny-student-student"


def test_a_student_of_clips4_can_teach(tmp_path, saved, photos):
    model = saved("first", tiny_clips4_config().for_inference())
    trained = self_train(model, WORDS, photos, tmp_path / "run", SMALL)
    run = json.loads((tmp_path / "run" / "start" / "run.json").read_text())
    assert run["config"]["known"]["kind"] == "pyramid"
    student, teacher = loading.load(trained), loading.load(model)
    tokens = teacher.tokenizer(["a dog", "the green grass"])
    assert_close(student.method.encode_text(tokens), teacher.method.encode_text(tokens))


def test_a_teacher_without_an_image_side_needs_weights(tmp_path, saved, photos):
    model = saved("grouping", tiny_ovsegmentor_config(entity=None, masks=None))
    with pytest.raises(ValueError, match=r"cannot have the image side of grouping.*--weights"):
        self_train(model, WORDS, photos, tmp_path / "run", SMALL)
    assert not (tmp_path / "run").exists()


def test_a_method_that_cannot_teach_is_refused_before_photos_are_labeled(tmp_path, saved, photos):
    model = saved("groups", tiny_groupvit_config())
    with pytest.raises(ValueError, match=r"groups cannot teach: .* text side of a GroupViT$"):
        self_train(model, WORDS, photos, tmp_path / "run", SMALL)
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_goes_on(tmp_path, tiny_checkpoint, photos, monkeypatch):
    def train(name: str) -> Path | None:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(
            tmp_path / name
        )  # the photos' paths are their keys, from which the augmentation follows
        return self_train(tiny_checkpoint, WORDS, photos, Path("run"), SMALL)

    def losses(name: str) -> list:
        rows = (tmp_path / name / "run" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(row)["loss"] for row in rows]

    train("whole")
    with monkeypatch.context() as patched:
        patched.setattr("maskfree.engine.train.any_process", lambda fabric: lambda here: True)
        assert train("stopped") is None
    assert len(losses("stopped")) == 1
    assert train("stopped") == Path("run/model")
    assert losses("stopped") == losses("whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": 0.0}, "keep is 0.0"),
        ({"balance": 1.5}, "balance is 1.5"),
        ({"student": replace(SMALL.student, weights="no/where")}, "no/where"),
    ],
)
def test_bad_settings_are_named(tmp_path, tiny_checkpoint, photos, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        self_train(tiny_checkpoint, WORDS, photos, tmp_path / "run", replace(SMALL, **changes))


def test_config_of_the_student_is_plain(tmp_path, tiny_checkpoint, teacher):
    config = start(tiny_checkpoint, teacher, SMALL, tmp_path / "start")
    assert isinstance(config, StudentConfig) and config.text.frozen

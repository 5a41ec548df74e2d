"""CLIP-S4's study from preparation to tables, with toy networks.

Its variants, its folds and its figures.
"""

import io
import json
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.data.config import DataConfig
from maskfree.engine.config import Recipe, TrainConfig
from maskfree.evaluation.class_free import unknown_classes, with_unknown
from maskfree.hub import checkpoint
from maskfree.methods.clips4.objectives_config import SemanticConsistencyConfig
from maskfree.recipes import clips4_pocket
from maskfree.regions.region_maps import SegmentConfig
from studies import clips4, clips4_pictures
from studies.clips4 import Study
from studies.clips4_pictures import draw_retrieved, embedding_colors, retrieve
from studies.clips4_variants import (
    ABLATIONS,
    CAMVID,
    COCO,
    CONSISTENCY,
    CONTRAST,
    CONTRAST_EMBEDDING,
    CONTRAST_SEMANTIC,
    COUNTS,
    DIRECTIONS,
    FULL,
    NUM_FOLDS,
    PLUS,
    TEACHER,
    TOP,
    count_name,
    first_time,
    fold_measure,
    for_every_seed,
    latest,
    second_time,
)
from studies.options import CLIPS4Options
from tiny import TINY_TAG_SCORES, tiny_clips4_config, tiny_vilseg_config

CHANGES = {ablation.name: ablation.change for ablation in ABLATIONS}


@pytest.fixture
def shards(tmp_path):
    """A shard of eight photos of squares with captions."""
    rng, path = np.random.default_rng(0), tmp_path / "shards" / "s-0.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for index in range(8):
            memory = io.BytesIO()
            squares = rng.integers(0, 256, (3, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)
            Image.fromarray(squares).save(memory, "PNG")
            for name, content in (
                (f"{index}.png", memory.getvalue()),
                (f"{index}.txt", b"squares"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def recipe(tmp_path, shards, tiny_tokenizer):
    """A study's recipe, whose teacher is a tiny ViL-Seg."""
    config = tiny_vilseg_config(grouping="pixels", cluster=None, vision=None)
    about = {"name": "tiny", "templates": ["a {}"]}
    checkpoint.save(tmp_path / "teacher", config.build(), config, tiny_tokenizer, about)
    semantic = SemanticConsistencyConfig(known="names", soft=True, class_prior=1.0, num_unknown=3)
    parts = {
        name: getattr(config, name) for name in ("image", "image_projection", "text_projection")
    }
    method = tiny_clips4_config(semantic=semantic, known=(), **parts)
    train = TrainConfig(steps=2, batch_size=2, warm_up_steps=0, devices="1", accelerator="cpu")
    data = DataConfig(shards=(str(shards),), workers=0, shuffle_buffer=4)
    return Recipe(
        "study", method, data, train, init=str(tmp_path / "teacher"), init_without=("cross",)
    )


def options(data, tmp_path, **changes):
    settings = {
        "seeds": (0,),
        "fold_seeds": (0,),
        "out": tmp_path / "runs",
        "results": tmp_path / "results",
    }
    settings |= {
        "model": str(tmp_path / "teacher"),
        "fold_steps": 1,
        "segments": SegmentConfig("felzenszwalb", max_regions=9),
    }
    return CLIPS4Options(data, **(settings | changes))


def rows_of(tmp_path, seed=0):
    return json.loads((tmp_path / "results" / f"reproduce-clips4-seed{seed}.json").read_text())[
        "rows"
    ]


def test_the_study_prepares_trains_measures_and_goes_on(
    data, recipe, trained, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("skimage")
    monkeypatch.setattr(clips4, "_PAPER", SemanticConsistencyConfig(num_unknown=3))
    chosen = options(data, tmp_path, tables=(2, 8), only=(TEACHER, FULL, TOP))
    clips4.reproduce(chosen, recipe)
    assert trained == ["study-clip-s4-flickr8k", "study-clip-s4-camvid"]
    rows = rows_of(tmp_path)
    measured = {(row["variant"], row["measure"]) for row in rows}
    assert {(name, each.name) for name in (TEACHER, FULL) for each in (COCO, CAMVID)} <= measured
    assert set(next(row["similarities"] for row in rows if row["variant"] == TOP)) == {
        "1",
        "4",
        "16",
        "64",
        "256",
    }
    assert "directions" in capsys.readouterr().out
    assert str(tmp_path) not in json.dumps(rows)
    clips4.reproduce(chosen, recipe)
    assert len(trained) == 2 and rows_of(tmp_path) == rows


def test_which_variants_have_which_seeds(data, recipe, tmp_path):
    chosen = options(data, tmp_path, seeds=(0, 1), fold_seeds=(0, 1, 3))
    study = Study(chosen, recipe)

    def names(seed):
        return [
            (each.name, {figure.name for figure in each.measures}) for each in study.variants(seed)
        ]

    folds = [fold_measure(fold).name for fold in range(NUM_FOLDS)]
    assert {name for name, _ in names(0)} == {TEACHER, TOP, *CHANGES}
    assert {name for name, _ in names(1)} == {*CHANGES}
    assert names(3) == [(name, {fold}) for name in (FULL, PLUS) for fold in folds]
    assert {"tracking", "similarity", "k-NN, camvid"} <= set().union(
        *(figures for _, figures in names(0))
    )


def test_variants_change_what_their_row_names_and_nothing_else():
    method = clips4_pocket().method
    assert CHANGES[FULL](method) == method
    losses = {"contrast": None, "embedding_weight": None, "semantic": None}
    assert CHANGES[PLUS](method) == replace(
        method, **losses, pseudo_label_weight=1.0, segments=None
    )
    for name, off in (
        (CONTRAST, ("embedding_weight", "semantic")),
        (CONTRAST_EMBEDDING, ("semantic",)),
        (CONTRAST_SEMANTIC, ("embedding_weight",)),
        (CONSISTENCY, ("contrast",)),
    ):
        assert CHANGES[name](method) == replace(method, **dict.fromkeys(off))
    for count in COUNTS[:-1]:
        semantic = replace(method.semantic, num_unknown=count)
        assert CHANGES[count_name(count)](method) == replace(method, semantic=semantic)


def test_folds_are_all_classes_once():
    chosen = benchmark("coco-mini")
    folds = [unknown_classes(chosen, fold) for fold in range(4)]
    assert sum(folds, ()) == tuple(line.split("/")[0] for line in chosen.words())
    assert with_unknown(chosen, folds[2]).unseen == folds[2]
    with pytest.raises(ValueError, match="fold 4: there are folds 0 to 3"):
        unknown_classes(chosen, 4)
    with pytest.raises(ValueError, match="30 folds of 20 classes"):
        unknown_classes(chosen, 0, 30)
    with pytest.raises(ValueError, match="'yeti' is no class of coco-mini"):
        with_unknown(chosen, ("yeti",))


def test_a_table_that_is_none_of_the_studys_is_refused(data, recipe, tmp_path):
    with pytest.raises(ValueError, match="table 9 is none of the study's"):
        clips4.reproduce(options(data, tmp_path, tables=(9,)), recipe)


def test_claims_are_about_variants_that_are_measured():
    assert {name for each in DIRECTIONS for name in (each.better, each.worse)} <= {
        *CHANGES,
        TEACHER,
    }


def test_the_teacher_compares_with_every_seed():
    rows = [
        {"variant": TEACHER, "seed": 0, "x": 5},
        *({"variant": FULL, "seed": seed} for seed in (0, 1, 4)),
    ]
    assert [row["seed"] for row in for_every_seed(rows) if row["variant"] == TEACHER] == [0, 1, 4]
    assert for_every_seed(rows)[:4] == rows


def test_the_rows_of_two_studies_do_not_mix_but_for_the_teacher():
    first = [
        {"variant": name, "measure": measure, "seed": 0, "earlier": True}
        for name in (TEACHER, FULL)
        for measure in ("m", "n")
    ]
    again = [{"variant": name, "measure": "m", "seed": 1} for name in (FULL, TEACHER)]
    assert first_time([*first, *again]) == first
    assert second_time([*first, *again]) == [*again, first[1]]


def test_equal_embeddings_have_equal_colors_in_the_maps_of_all_models():
    one = torch.randn(6, 3, 5)
    other = torch.cat([one[:, 1:], torch.randn(6, 2, 5)], dim=1)
    first, second = embedding_colors([one, other])
    assert first.shape == (3, 5, 3) and second.shape == (4, 5, 3)
    assert np.allclose(first[1:], second[:2], atol=1e-6)
    assert first.min() >= 0 and second.max() <= 1 and np.ptp(first) > 0.5


def test_retrieved_segments_are_the_best_of_each_photo_and_know_whether_they_are_right(
    tmp_path, monkeypatch
):
    """Photos of two halves of colors; the model's words are the colors."""
    samples = []
    for number, colors in enumerate(([0, 1], [1, 2], [2, 2])):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.array([colors], np.uint8).repeat(8, 0).repeat(16, 1)).save(path)
        truth = np.array([colors], np.uint8).repeat(8, 0).repeat(16, 1)
        samples.append(Painted(path, truth))

    def segments_of(model, photo, config):
        ids = torch.from_numpy(np.asarray(photo)[::2, ::2].astype(np.int64))
        sizes = ids.flatten().bincount(minlength=3)
        return SimpleNamespace(ids=ids, sizes=sizes, embeddings=torch.eye(3))

    monkeypatch.setattr(clips4_pictures, "segments_of", segments_of)
    monkeypatch.setattr(clips4_pictures, "read_photo", Image.open)
    model = SimpleNamespace(with_words=lambda *_: SimpleNamespace(embeddings=torch.eye(3)[1:]))
    found = retrieve(model, samples, {1: "one", 2: "two"}, 2)
    assert [each.photo.stem for each in found["one"]] == ["0", "1"]
    assert [each.photo.stem for each in found["two"]] == ["1", "2"]
    assert all(each.right for best in found.values() for each in best)
    assert found["one"][0].inside.shape == (4, 16) and found["one"][0].inside[:, 8:].all()
    samples[0].truth[:] = 255  # nothing is labeled
    assert not retrieve(model, samples, {1: "one"}, 2)["one"][0].right

    draw_retrieved({"a": found, "b": found}, tmp_path / "retrieved.svg")
    assert (tmp_path / "retrieved.svg").read_text().count("<image") == 8


@dataclass
class Painted:
    photo: Path
    truth: np.ndarray

    def read_truth(self):
        return self.truth


def test_the_teacher_is_the_embedding_alone(tmp_path, recipe, tiny_tokenizer):
    """The tag scores of the bundled model are nothing that its students learn from."""
    config = tiny_vilseg_config(
        grouping="pixels", cluster=None, vision=None, tag_scores=TINY_TAG_SCORES
    )
    about = {"name": "tiny", "templates": ["a {}"]}
    folder = tmp_path / "with-tags"
    checkpoint.save(folder, config.build(), config, tiny_tokenizer, about)
    study = Study(options(tmp_path, tmp_path, model=str(folder)), recipe)
    teacher = next(study.variants(0))
    assert teacher.name == TEACHER
    model = teacher.model()
    assert model.name == "tiny" and model.method.tag_scores is None


def test_the_latest_rows_are_of_the_second_study_where_it_has_measured():
    first = [
        {"variant": TEACHER, "measure": "camvid", "earlier": True},
        {"variant": FULL, "measure": "camvid", "earlier": True},
        {"variant": FULL, "measure": "fold 0", "earlier": True},
    ]
    again = [{"variant": FULL, "measure": "camvid"}]
    assert latest([*first, *again]) == [*again, first[0], first[2]]

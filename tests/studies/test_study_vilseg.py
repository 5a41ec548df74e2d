"""ViL-Seg's study from training to tables, with toy networks; and its figures."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from maskfree.data.config import DataConfig
from maskfree.engine.config import TrainConfig
from maskfree.methods.vilseg.config import ClusterConfig
from maskfree.methods.vilseg.words_config import WordsConfig
from maskfree.recipes import vilseg_debug, vilseg_pocket
from studies import options, vilseg, vilseg_ladder, vilseg_speed
from studies.options import ViLSegOptions
from studies.vilseg import COCO, FULL, NO_VISION, PIXELS_STUDENT, STUDENT, draw
from studies.vilseg_figures import draw_regions
from studies.vilseg_ladder import Remembered, trainings
from studies.vilseg_study import Study
from tiny import TINY_TEXT, tiny_vilseg_config


def recipe(**settings):
    train = TrainConfig(
        **({"steps": 2, "batch_size": 4, "warm_up_steps": 0, "devices": "1"} | settings)
    )
    text = replace(TINY_TEXT, architecture=TINY_TEXT.architecture | {"max_position_embeddings": 80})
    cluster = ClusterConfig(num_clusters=20, standardized=True)
    method = tiny_vilseg_config(text=text, cluster=cluster, assignment="soft")
    data = DataConfig(shapes=20, workers=0, shuffle_buffer=20)
    return replace(vilseg_debug(), name="study", method=method, train=train, data=data)


@pytest.mark.slow
def test_the_study_trains_measures_and_goes_on(data, trained, tmp_path, capsys):
    small = {"head_photos": 8, "head_steps": 2, "student_steps": 2}
    chosen = ViLSegOptions(data, (0,), tmp_path / "runs", tmp_path / "results", **small)
    vilseg.reproduce(chosen, recipe())
    assert trained == ["study-full", "study-without-vision"]
    (path,) = (tmp_path / "results").glob("*.json")
    content = json.loads(path.read_text())
    variants = list(dict.fromkeys(row["variant"] for row in content["rows"]))
    assert variants[:4] == [FULL, vilseg.HARD, vilseg.KMEANS, vilseg.PIXELS]
    assert variants[-3:] == [NO_VISION, STUDENT, PIXELS_STUDENT]
    parameters = {row["variant"]: row["parameters"] for row in content["rows"]}
    assert parameters[FULL] - parameters["C = 5"] == 15 * (18 + 1)
    assert str(tmp_path) not in path.read_text()
    assert (tmp_path / "results" / "reproduce-vilseg-clusters.svg").is_file()
    assert (tmp_path / "results" / "reproduce-vilseg-classes.svg").is_file()
    assert "directions" in capsys.readouterr().out

    content["rows"] = content["rows"][:-2]
    path.write_text(json.dumps(content))
    vilseg.reproduce(chosen, recipe())
    assert len(trained) == 2
    assert len(json.loads(path.read_text())["rows"]) == len(content["rows"]) + 2

    with pytest.raises(ValueError, match=r"rows of another recipe.train.learning_rate"):
        vilseg.reproduce(chosen, recipe(learning_rate=0.5))


def row(variant, seed, mean_iou, measure=COCO.name):
    return {
        "variant": variant,
        "seed": seed,
        "measure": measure,
        "mean_iou": mean_iou,
        "iou": {"dog": mean_iou},
    }


ROWS = [
    row(FULL, 0, 0.4),
    row(FULL, 1, 0.5),
    row(FULL, 2, 0.6),
    row(NO_VISION, 0, 0.3),
    row(NO_VISION, 1, 0.6),
]


def test_figures_are_drawn_of_what_is_there(tmp_path):
    draw([], tmp_path / "x")
    assert not list(tmp_path.iterdir())
    draw(ROWS, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x-classes.svg"]


def test_clip_and_seg_is_a_clip_and_measured_once(data, tmp_path):
    chosen = ViLSegOptions(data, (3, 4), clip="maskclip:folder", only=())
    for seed, times in ((3, 1), (4, 0)):
        study = Study(recipe(seed=seed), tmp_path, 8, 2)
        named = [each for each in vilseg._variants(study, chosen) if each.name == vilseg.CLIP_SEG]
        assert [each.model() for each in named] == ["maskclip:folder"] * times


def test_missing_text_weights_are_named(data, tmp_path, monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="no text weights: name them with --text-weights"):
        vilseg.reproduce(ViLSegOptions(data, out=tmp_path / "runs", results=tmp_path / "results"))


def test_the_ladder_adds_one_thing_at_a_time(data, trained, tmp_path):
    small = {"head_photos": 8, "head_steps": 2, "part": "ladder"}
    chosen = ViLSegOptions(data, (0,), tmp_path / "runs", tmp_path / "results", **small)
    vilseg.reproduce(chosen, recipe())
    assert trained == [f"ladder-rung-{number}" for number in (1, 2, 3, 4)]
    (path,) = (tmp_path / "results").glob("*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["variant"] for row in rows[::2]] == list(vilseg_ladder.RUNGS)
    prompts = [len(row["protocol"]["templates"]) for row in rows[::2]]
    smooth = [row["protocol"]["smooth"] for row in rows[::2]]
    assert (prompts, smooth) == ([1] * 6 + [7] * 3, [1] * 7 + [3] * 2)
    assert {row["protocol"]["class_prior"] for row in rows} == {0}


def test_the_ladder_begins_with_what_is_printed():
    method = replace(vilseg_pocket().method, words=WordsConfig())
    paper, started, worded, weighted = trainings(method).values()
    assert (paper.vision.weight, paper.cross.weight, paper.cluster.weight) == (1, 1, 1)
    assert (paper.vision.num_local_views, paper.cluster.num_clusters) == (6, 20)
    assert (paper.image_projection.kind, paper.text_projection.kind) == ("linear", "linear")
    assert (paper.words, paper.tag_scores, paper.cluster.standardized) == (None, None, False)
    assert (paper.grouping, paper.assignment, paper.cross.symmetric) == ("clusters", "hard", False)
    assert replace(started, words=None, **of_paper("image_projection", "text_projection")) == paper
    assert replace(worded, words=started.words) == started
    assert replace(weighted, cross=paper.cross, vision=paper.vision) == worded
    assert (weighted.cross, weighted.vision) == (method.cross, method.vision)


def of_paper(*names):
    paper = vilseg_ladder.paper_method(vilseg_pocket().method)
    return {name: getattr(paper, name) for name in names}


def test_remembered_embeddings_are_those_of_the_same_weights():
    first, second = (tiny_vilseg_config(vision=None).build().eval().image for _ in range(2))
    images = torch.rand(2, 3, 48, 80)
    remembered = Remembered.of(first)
    assert torch.equal(remembered(images), first(images))
    assert remembered(images) is remembered(images.clone())
    assert remembered(images.flip(0)) is not remembered(images)
    assert Remembered.of(deepcopy(first)) is remembered
    assert Remembered.of(second) is not remembered


def test_the_image_side_has_the_papers_parameters():
    with torch.device("meta"):
        image, head = vilseg_speed.image_side(vilseg_speed.configs()[vilseg_speed.VIT])
    count = sum(p.numel() for p in image.parameters())
    assert f"{count / 1e6:.2f}" == "86.19"
    assert sum(p.numel() for p in head.parameters()) == 20 * (512 + 1)


def test_groupings_are_timed_in_turn(monkeypatch):
    seen = []
    group = vilseg_speed.group_pixels

    def noted(pixels, grouping, head):
        seen.append(grouping)
        return group(pixels, grouping, head)

    monkeypatch.setattr(vilseg_speed, "group_pixels", noted)
    config = tiny_vilseg_config()
    times = vilseg_speed.interleaved(*vilseg_speed.image_side(config), torch.rand(1, 3, 48, 80))
    assert seen == ["clusters", "kmeans", "pixels"] * (vilseg_speed.ROUNDS + 1)
    assert {len(each) for each in times.values()} == {vilseg_speed.ROUNDS}


def test_regions_are_drawn_side_by_side(saved, photo, tmp_path):
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, size in zip(photos, [(64, 48), (50, 70)], strict=True):
        photo(size).save(path)
    config = tiny_vilseg_config(vision=None)
    models = {name: saved(name, config) for name in ("K-means", "L < 2")}
    draw_regions(models, photos, tmp_path / "x.svg")
    drawn = (tmp_path / "x.svg").read_text()
    assert drawn.count("<image") == 2 * 3 and "L &lt; 2" in drawn
    assert 'viewBox="0 0 600 324"' in drawn

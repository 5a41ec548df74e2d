"""ViL-Seg's study from training to tables, with toy networks; and its figures."""

import json
from dataclasses import replace

import pytest

from maskfree.data.config import DataConfig
from maskfree.engine.config import TrainConfig
from maskfree.methods.vilseg.config import ClusterConfig
from maskfree.recipes import vilseg_debug
from studies import options, vilseg
from studies.options import ViLSegOptions
from studies.vilseg import COCO, FULL, NO_VISION, STUDENT, draw
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
    assert variants[-2:] == [NO_VISION, STUDENT]
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


def test_missing_text_weights_are_named(data, tmp_path, monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="no text weights: name them with --text-weights"):
        vilseg.reproduce(ViLSegOptions(data, out=tmp_path / "runs", results=tmp_path / "results"))


def test_the_ladder_adds_one_thing_at_a_time(data, trained, tmp_path):
    small = {"head_photos": 8, "head_steps": 2, "part": "ladder"}
    chosen = ViLSegOptions(data, (0,), tmp_path / "runs", tmp_path / "results", **small)
    vilseg.reproduce(chosen, ladder_recipe())
    assert trained == [f"ladder-rung-{number}" for number in (1, 2, 3, 4)]

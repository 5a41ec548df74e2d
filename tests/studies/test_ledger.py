"""Rows of a study are those of one set of settings, wherever its files lie."""

import json
from dataclasses import replace

import pytest

from maskfree.engine.config import TrainConfig
from maskfree.recipes import vilseg_debug
from studies.ledger import StudyRows, read

HEAD = {"kind": "reproduce-x", "seed": 3, "model": None, "command": "python -m studies x --data D"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "reproduce-x-seed3.json"


def written(path, recipe, **settings):
    """A file of one row."""
    ledger = StudyRows(path, HEAD, recipe, settings)
    ledger._add("full", "coco-mini", {"mean_iou": 0.5})
    return json.loads(path.read_text())


def test_rows_come_back_with_their_seed(path):
    written(path, vilseg_debug())
    assert read(path.parent, "reproduce-x") == [
        {"variant": "full", "measure": "coco-mini", "mean_iou": 0.5, "seed": 3}
    ]
    assert read(path.parent, "reproduce-x", "pocket") == read(path.parent, "reproduce-y") == []


def test_places_and_the_seed_do_not_matter(path):
    recipe = vilseg_debug()

    def placed(folder, seed):
        data = replace(
            recipe.data, shapes=0, shards=(f"{folder}/a.tar",), index=f"{folder}/entities"
        )
        method = replace(
            recipe.method, text=replace(recipe.method.text, weights=f"{folder}/minilm")
        )
        return replace(recipe, data=data, method=method, train=replace(recipe.train, seed=seed))

    content = written(path, placed("/here", 1))
    assert "/here" not in json.dumps(content)
    assert StudyRows(path, HEAD, placed("/there", 2), {}).rows


def test_other_settings_are_refused_by_name(path):
    recipe = vilseg_debug()
    written(path, recipe, head_steps=5)
    with pytest.raises(ValueError, match=r"rows of another head_steps: choose another --results"):
        StudyRows(path, HEAD, recipe, {"head_steps": 6})
    other = replace(recipe, train=replace(recipe.train, learning_rate=0.5))
    with pytest.raises(ValueError, match=r"rows of another recipe.train.learning_rate"):
        StudyRows(path, HEAD, other, {"head_steps": 5})


def test_a_setting_that_came_later_had_its_default(path):
    recipe = vilseg_debug()
    content = written(path, recipe)
    del content["settings"]["recipe"]["train"]["final_rate"]
    path.write_text(json.dumps(content))
    assert TrainConfig.final_rate == recipe.train.final_rate
    assert StudyRows(path, HEAD, recipe, {}).rows
    with pytest.raises(ValueError, match=r"rows of another recipe.train.final_rate"):
        StudyRows(path, HEAD, replace(recipe, train=replace(recipe.train, final_rate=0.5)), {})

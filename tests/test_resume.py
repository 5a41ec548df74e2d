"""A resumed run may change a few settings, which run.json tells, and the number of processes."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch

from maskfree.data.loader import Position
from maskfree.data.order import Share
from maskfree.distillation.self_training import fit as student_fit
from maskfree.engine import run_state
from maskfree.engine.optimizers import cosine
from maskfree.engine.positions import positions_from, tensors_of
from maskfree.engine.train import LOG_SETTINGS, fit
from test_train import losses, small_recipe


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps."""
    out = tmp_path_factory.mktemp("six") / "run"
    assert fit(small_recipe(), out) == 6
    return out


@pytest.fixture
def stopped(tmp_path: Path, whole: Path) -> Path:
    """The same run, killed after its fourth step."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for lost in ("model", "state/step-00000006"):
        shutil.rmtree(out / lost)
    return out


def rates(out: Path) -> list[float]:
    return [json.loads(row)["rate"] for row in (out / "metrics.jsonl").read_text().splitlines()]


def test_rate_steps_and_intervals_may_change_and_the_record_says_so(stopped, whole):
    changes = {"steps": 9, "learning_rate": 1e-3, "save_every": 3, "log_every": 2}
    recipe = small_recipe(**changes)
    before = small_recipe().train
    assert fit(recipe, stopped, resume_run=True) == 9

    assert losses(stopped)[:4] == losses(whole)[:4]
    steps = [step for step, _ in losses(stopped)]
    assert steps == [1, 2, 3, 4, 6, 8, 9]
    expected = [1e-3 * cosine(step - 1, 9, warm_up_steps=2) for step in (6, 8, 9)]
    assert rates(stopped)[4:] == pytest.approx(expected)

    record = run_state.read_record(stopped)
    (resumed,) = record["resumed"]
    assert (resumed["step"], resumed["processes"]) == (4, 1)
    assert resumed["changed"] == {
        f"train.{name}": [getattr(before, name), value] for name, value in changes.items()
    }
    assert record["settings"]["train"]["steps"] == 9


def test_a_resumed_run_without_changes_says_that_there_are_none(stopped, whole):
    assert fit(small_recipe(), stopped, resume_run=True) == 6
    assert losses(stopped) == losses(whole)
    (resumed,) = run_state.read_record(stopped)["resumed"]
    assert (resumed["step"], resumed["changed"]) == (4, {})


def test_a_finished_run_goes_on_with_more_steps_and_none_goes_back(stopped, tmp_path):
    assert fit(small_recipe(), stopped, resume_run=True) == 6
    with pytest.raises(ValueError, match=r"train\.steps is 5, but the run has done 6 already"):
        fit(small_recipe(steps=5), stopped, resume_run=True)
    assert fit(small_recipe(steps=7), stopped, resume_run=True) == 7
    model = json.loads((stopped / "model" / "run.json").read_text())
    assert model["steps"] == 7


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (small_recipe(weight_decay=0.5), "train.weight_decay"),
        (small_recipe({"shuffle_buffer": 7}), "data.shuffle_buffer"),
    ],
)
def test_other_settings_must_stay(stopped, recipe, name):
    with pytest.raises(ValueError, match=f"begun with another {name}: give another folder"):
        fit(recipe, stopped, resume_run=True)


def test_a_student_with_another_rate_is_another_run(stopped):
    """Distillation goes on by itself in its folder, so a change there is no wish to go on."""
    assert student_fit is fit
    with pytest.raises(ValueError, match=r"begun with another train\.learning_rate"):
        fit(small_recipe(learning_rate=1.0), stopped, True, LOG_SETTINGS)


def test_a_run_of_before_a_setting_existed_goes_on(stopped):
    record = json.loads((stopped / "run.json").read_text())
    del record["settings"]["train"]["storage"]
    (stopped / "run.json").write_text(json.dumps(record))
    assert fit(small_recipe(), stopped, resume_run=True) == 6


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 1), (1, 2)), ((1, 4), (2, 2)), ((2, 2), (4, 1)), ((2, 3), (3, 2))],
)
def test_other_processes_go_on_where_each_stream_was(before, after):
    """Streams are numbered process by process, and every one keeps its position."""
    numbers = itertools.count(1)
    saved: list[torch.Tensor] = []
    reasons: list[torch.Tensor] = []
    for _ in range(before[0]):
        own = [
            Position(n % 3, 10 * n, n, (0, n, 0, 0, 0, 0))
            for n in itertools.islice(numbers, before[1])
        ]
        places, by_reason = tensors_of(own, torch.device("cpu"))
        saved.append(places)
        reasons.append(by_reason)
    tensors = {"positions": torch.stack(saved), "left_out": torch.stack(reasons)}

    found = []
    for index in range(after[0]):
        found += positions_from(tensors, Share(index, after[0]), after[1])
    count = before[0] * before[1]
    assert found == [Position(n % 3, 10 * n, n, (0, n, 0, 0, 0, 0)) for n in range(1, count + 1)]


def test_another_number_of_streams_is_refused():
    tensors = {"positions": torch.zeros(2, 3, 3, dtype=torch.long)}
    message = r"6 streams \(2 processes x 3 data workers\), not 4 \(4 x 1\): choose --data.workers"
    with pytest.raises(ValueError, match=message):
        positions_from(tensors, Share(0, 4), 1)

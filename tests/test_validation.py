"""Evaluation during training: the best model and those of milestones are kept, whatever stops."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from maskfree.cli import main
from maskfree.distributed import launch
from maskfree.engine.config import ValidationConfig
from maskfree.engine.train import LOG_SETTINGS, fit
from maskfree.engine.trainer import Trainer
from maskfree.evaluation.during_training import BenchmarkScore
from maskfree.hub.loading import load
from test_train import losses, small_recipe
from tiny_benchmark import write_benchmark

SCORES = {2: 0.2, 4: 0.5, 6: 0.3, 7: 0.5}


def recipe(**changes: Any):
    validation = ValidationConfig(benchmark=("coco-mini", "data"), every=2)
    return replace(small_recipe(**changes), validation=validation)


def measure(checkpoint: Path, fabric: Any) -> dict[str, Any]:
    """The score that a step is given, of what can be loaded."""
    assert load(checkpoint, "cpu").name == "vilseg-debug"
    step = json.loads((checkpoint / "run.json").read_text())["steps"]
    return {"mean_iou": SCORES[step], "benchmark": "coco-mini", "photos": 2}


def rows(out: Path) -> list[tuple[int, float, bool]]:
    read = [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]
    assert all((row["benchmark"], row["photos"]) == ("coco-mini", 2) for row in read)
    return [(row["step"], row["mean_iou"], row["best"]) for row in read]


def best(out: Path) -> dict[str, Any]:
    return json.loads((out / "best" / "run.json").read_text())


ROWS = [(2, 0.2, True), (4, 0.5, True), (6, 0.3, False), (7, 0.5, False)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seven steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert fit(recipe(steps=7, milestones=(3, 4), save_every=5), out, measure=measure) == 7
    return out


def assert_same(out: Path, whole: Path) -> None:
    assert rows(out) == rows(whole) == ROWS
    assert losses(out) == losses(whole)
    for model in ("model", "best", "milestones/step-00000003", "milestones/step-00000004"):
        weights = [load_file(run / model / "weights.safetensors") for run in (out, whole)]
        assert_close(*weights, atol=0, rtol=0)


def test_the_best_and_the_milestones_are_kept(whole):
    assert rows(whole) == ROWS
    assert best(whole)["steps"] == best(whole)["validation"]["step"] == 4
    kept = sorted(path.name for path in (whole / "milestones").iterdir())
    assert kept == ["step-00000003", "step-00000004"]
    assert not (whole / "candidate").exists()

    same = [whole / "best", whole / "milestones" / "step-00000004"]
    one, other = (load_file(folder / "weights.safetensors") for folder in same)
    assert_close(one, other, atol=0, rtol=0)
    last = load_file(whole / "model" / "weights.safetensors")
    assert any(not (one[name] == last[name]).all() for name in last)


def test_an_evaluation_changes_nothing_of_the_training(tmp_path, whole):
    assert fit(small_recipe(steps=7, save_every=5), tmp_path) == 7
    assert losses(tmp_path) == losses(whole)


def test_a_run_killed_in_an_evaluation_makes_up_for_it(tmp_path, whole):
    def killed(checkpoint: Path, fabric: Any) -> dict[str, Any]:
        found = measure(checkpoint, fabric)
        if found["mean_iou"] == 0.5:
            raise MemoryError
        return found

    settings = recipe(steps=7, milestones=(3, 4), save_every=5)
    out = tmp_path / "run"
    with pytest.raises(MemoryError):
        fit(settings, out, measure=killed)
    assert rows(out) == ROWS[:1]
    assert best(out)["steps"] == 2
    shutil.copytree(out, tmp_path / "other")
    assert fit(settings, out, True, measure=measure) == 7
    assert_same(out, whole)

    # Killed once more at the last step, whose model is not finished then.
    with pytest.raises(MemoryError):
        fit(settings, tmp_path / "other", True, measure=killed)
    assert fit(settings, tmp_path / "other", True, measure=measure) == 7
    assert_same(tmp_path / "other", whole)


def test_a_stop_waits_for_no_evaluation(tmp_path, whole, monkeypatch):
    step = Trainer.train_step

    def stopping(trainer: Trainer, batches: Any) -> Any:
        if trainer.step == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(trainer, batches)

    settings = recipe(steps=7, milestones=(3, 4), save_every=5)
    monkeypatch.setattr(Trainer, "train_step", stopping)
    assert fit(settings, tmp_path, measure=measure) == 4
    assert rows(tmp_path) == ROWS[:1]

    monkeypatch.setattr(Trainer, "train_step", step)
    assert fit(settings, tmp_path, True, measure=measure) == 7
    assert_same(tmp_path, whole)


def test_a_benchmark_without_its_measure_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"validation\.benchmark is \('coco-mini', 'data'\)"):
        fit(recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_may_change_on_resuming(tmp_path):
    fit(small_recipe(steps=2), tmp_path)
    assert fit(recipe(steps=4, milestones=(3,)), tmp_path, True, measure=measure) == 4
    assert rows(tmp_path) == [(2, 0.2, True), (4, 0.5, True)]
    assert (tmp_path / "milestones" / "step-00000003").is_dir()
    with pytest.raises(ValueError, match=r"begun with another train\.steps"):
        fit(recipe(steps=6, milestones=(5,)), tmp_path, True, LOG_SETTINGS, measure)


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


SETTINGS = (
    *("--data.shapes", 16, "--train.batch-size", 4, "--train.steps", 4),
    *("--train.accelerator", "cpu", "--validation.every", 2, "--validation.photos", 1),
)


def test_the_command_selects_on_a_benchmark(tmp_path):
    root, out = write_benchmark(tmp_path / "coco"), tmp_path / "run"
    options = ("--validation.benchmark", "coco-mini", root, "--train.milestones", 1, 3)
    assert command("train", "vilseg_debug", *SETTINGS, *options, "--out", out) == 0
    read = [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in read] == [2, 4]
    assert {row["photos"] for row in read} == {1}
    assert len(list((out / "milestones").iterdir())) == 2

    # The record of the best model says on what it was selected, and that can be measured again.
    found = best(out)["validation"]
    assert found["mean_iou"] == max(row["mean_iou"] for row in read)
    assert (found["protocol"]["names"], found["protocol"]["background"]) == ("plain", "none")
    again = BenchmarkScore.find("coco-mini", root, 1)(out / "best", launch("cpu"))
    assert again == {name: value for name, value in found.items() if name != "step"}


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [(("coco-micro", "."), "coco-micro"), (("coco-mini", "nowhere"), "nowhere")],
)
def test_a_benchmark_that_is_not_there_ends_in_one_line(
    tmp_path, monkeypatch, capsys, benchmark: tuple[str, str], message
):
    monkeypatch.chdir(tmp_path)
    options = ("--validation.benchmark", *benchmark)
    assert command("train", "vilseg_debug", *SETTINGS, *options, "--out", "run") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("maskfree: error: ") and message in line
    assert not (tmp_path / "run").exists()


Change = Callable[[Path], None]


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_text("{"), lambda path: path.write_text("")]
)
def test_a_damaged_log_is_no_obstacle(tmp_path, damage: Change):
    """Then the model is measured anew."""
    fit(recipe(steps=2), tmp_path, measure=measure)
    damage(tmp_path / "validation.jsonl")
    assert fit(recipe(steps=4), tmp_path, True, measure=measure) == 4
    assert rows(tmp_path)[-1] == (4, 0.5, True)
    assert best(tmp_path)["steps"] == 4

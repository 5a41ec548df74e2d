"""A step whose gradient is not finite leaves no trace but its count; many in a row end the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from maskfree.data.loader import Loaded, build_loader
from maskfree.distributed import launch
from maskfree.engine import skipping
from maskfree.engine.batches import drawn_shapes, stream_of
from maskfree.engine.config import Recipe
from maskfree.engine.start import build_method
from maskfree.engine.train import fit
from maskfree.engine.trainer import Trainer
from maskfree.recipes import clips4_debug, ovsegmentor_debug, vilseg_debug
from maskfree.text.tokenize import Tokenizer
from test_train import SMALL, losses, small_recipe

RECIPES = [vilseg_debug, ovsegmentor_debug, clips4_debug]


def prepared(recipe: Recipe, folder: Path) -> tuple[Trainer, Iterator[Loaded]]:
    """Trainer of a recipe, and its batches."""
    train = replace(recipe.train, **SMALL, average_decay=0.9)
    fabric = launch("cpu")
    folder /= "data"
    data = drawn_shapes(fabric, replace(recipe.data, shapes=24), folder)
    transform = recipe.method.build_transform(Tokenizer.from_source(str(folder)))
    stream = stream_of(fabric, train, data, transform)
    torch.manual_seed(0)
    trainer = Trainer(fabric, build_method(recipe, None), train, stream.num_streams)
    return trainer, iter(build_loader(stream, 0))


def broken(value: Any) -> Any:
    """The same batch with NaN in place of every number that is no count."""
    if isinstance(value, Tensor):
        return torch.full_like(value, torch.nan) if value.is_floating_point() else value
    if is_dataclass(value) and not isinstance(value, type):
        changed = {each.name: broken(getattr(value, each.name)) for each in fields(value)}
        return replace(value, **changed)
    return value


def spoiled(loaded: Loaded) -> Loaded:
    """The same, its batch with NaN; the bytes of views are made numbers before."""
    return replace(loaded, batch=broken(loaded.batch.to(torch.device("cpu"))))


def lasting(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of all that a skipped step must not change."""
    trained = {f"weight {name}": weight for name, weight in trainer._trained.items()}
    buffers = {f"buffer {name}": each for name, each in trainer.method.named_buffers()}
    averages = {f"average {name}": each for name, each in trainer._average.items()}
    moments = {
        f"moment {number} {name}": value
        for number, state in enumerate(trainer.optimizer.state.values())
        for name, value in state.items()
    }
    together = trained | buffers | averages | moments
    return {name: value.detach().clone() for name, value in together.items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_batch_that_is_not_finite_changes_nothing_and_the_next_one_trains(tmp_path, recipe):
    trainer, batches = prepared(recipe(), tmp_path)
    trainer.train_step(batches)
    before = lasting(trainer)

    loaded = next(batches)
    bad = spoiled(loaded)
    report = trainer.train_step(iter([bad]))
    assert not report["loss"]["total"].isfinite()
    assert_close(lasting(trainer), before, atol=0, rtol=0)
    assert (trainer.step, trainer.skipped.total, trainer.skipped.in_a_row) == (2, 1, 1)
    assert trainer.positions == [loaded.position]

    assert trainer.train_step(batches)["loss"]["total"].isfinite()
    assert (trainer.skipped.total, trainer.skipped.in_a_row) == (1, 0)
    after = lasting(trainer)
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(after[name], before[name]) for name in after)


def test_without_clipping_too(tmp_path):
    recipe = vilseg_debug()
    recipe = replace(recipe, train=replace(recipe.train, clip_norm=0.0))
    trainer, batches = prepared(recipe, tmp_path)
    before = lasting(trainer)
    loaded = next(batches)
    trainer.train_step(iter([spoiled(loaded)]))
    assert trainer.skipped.total == 1
    assert_close(lasting(trainer), before, atol=0, rtol=0)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the gradient of some steps, from 1, NaN."""
    clip = Trainer._clip_gradients

    def fail(*steps: int) -> None:
        def clipped(trainer: Trainer) -> Tensor:
            norm = clip(trainer)
            return norm * torch.nan if trainer.step + 1 in steps else norm

        monkeypatch.setattr(Trainer, "_clip_gradients", clipped)

    return fail


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_counts_its_skipped_steps_and_stops_after_many_in_a_row(
    tmp_path, failing, monkeypatch, caplog
):
    monkeypatch.setattr(skipping, "MAX_IN_A_ROW", 3)
    failing(2, 3, 5)
    assert fit(small_recipe(), tmp_path / "run") == 6
    assert [row["skipped"] for row in rows(tmp_path / "run")] == [0, 1, 2, 2, 3, 3]
    assert "skipped 3 of 6 steps" in caplog.text

    failing(2, 3, 4)
    message = "the gradient is nan in step 4, the last of 3 in a row that were skipped"
    with pytest.raises(ValueError, match=message) as raised:
        fit(small_recipe(), tmp_path / "stopped")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "stopped" / "model").exists()


def test_a_stopped_run_goes_on_with_its_counts(tmp_path, failing, monkeypatch):
    monkeypatch.setattr(skipping, "MAX_IN_A_ROW", 3)
    failing(2, 4, 5)
    assert fit(small_recipe(), tmp_path / "whole") == 6

    # The state of step 4 has one skipped step of two in a row.
    failing(2, 4, 5, 6)
    with pytest.raises(ValueError, match="in step 6, the last of 3 in a row"):
        fit(small_recipe(), tmp_path / "run")
    with pytest.raises(ValueError, match="in step 6, the last of 3 in a row"):
        fit(small_recipe(), tmp_path / "run", resume_run=True)

    failing(2, 4, 5)
    assert fit(small_recipe(), tmp_path / "run", resume_run=True) == 6
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert rows(tmp_path / "run")[-1]["skipped"] == 3
    weights = [load_file(tmp_path / run / "model/weights.safetensors") for run in ("run", "whole")]
    assert_close(*weights, atol=0, rtol=0)


def test_losses_that_are_not_finite_are_null_in_the_log(tmp_path, monkeypatch):
    """JSON has no NaN, and strict readers refuse it."""
    step = Trainer.train_step

    def poisoned(trainer: Trainer, batches: Iterator[Loaded]) -> dict[str, dict[str, Tensor]]:
        if trainer.step != 1:
            return step(trainer, batches)
        loaded = next(batches)
        return step(trainer, iter([spoiled(loaded)]))

    monkeypatch.setattr(Trainer, "train_step", poisoned)
    assert fit(small_recipe(), tmp_path) == 6
    assert [row["loss"]["total"] is None for row in rows(tmp_path)] == [False, True, *[False] * 4]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()

"""float16 with a loss scale, torch.compile and page-locked batches."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from maskfree.data.loader import Loaded, Position
from maskfree.distributed import launch
from maskfree.engine import run_state
from maskfree.engine.batches import read_batches
from maskfree.engine.skipping import scale_of, set_scale
from maskfree.engine.train import fit
from maskfree.engine.trainer import Trainer
from maskfree.recipes import clips4_debug, ovsegmentor_debug, vilseg_debug
from test_skipped_steps import lasting, prepared
from test_train import SMALL, losses, small_recipe
from two_processes import batches


def test_float16_trains_and_goes_on_as_if_nothing_had_been(tmp_path):
    recipe = small_recipe(precision="16-mixed")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert fit(recipe, whole) == 6
    assert all(loss["total"] is not None for _, loss in losses(whole))

    shutil.copytree(whole, stopped)
    for lost in ("model", "state/step-00000006"):
        shutil.rmtree(stopped / lost)
    _, state = run_state.load_state(stopped) or (0, {})
    # Each skipped step has halved the scale, which begins at 2**16.
    assert state["loss_scale"][0] == 2.0 ** (16 - state["skipped"][0].item())
    assert fit(recipe, stopped, resume_run=True) == 6
    assert losses(stopped) == losses(whole)
    weights = [load_file(run / "model" / "weights.safetensors") for run in (stopped, whole)]
    assert_close(*weights, atol=0, rtol=0)


def test_float16_differs_from_float32_and_little(tmp_path):
    fit(small_recipe(steps=2), tmp_path / "full")
    fit(small_recipe(steps=2, precision="16-mixed"), tmp_path / "half")
    (_, full), (_, half) = losses(tmp_path / "full")[0], losses(tmp_path / "half")[0]
    assert full["cross"] != half["cross"]
    assert half["cross"] == pytest.approx(full["cross"], rel=1e-2)


def test_a_loss_scale_that_overflows_falls_and_the_step_is_skipped(tmp_path):
    _, loaded = prepared(small_recipe(), tmp_path)
    train = replace(small_recipe().train, average_decay=0.9, warm_up_steps=0)
    fabric = launch("cpu", precision="16-mixed")
    trainer = Trainer(fabric, small_recipe().method.build(), train, 1)
    assert trainer._scaler is not None

    set_scale(trainer._scaler, torch.tensor([2.0**100, 7.0]))
    before = lasting(trainer)
    trainer.train_step(loaded)
    assert trainer.skipped.total == 1
    assert scale_of(trainer._scaler).tolist() == [2.0**99, 0]
    assert_close(lasting(trainer), before, atol=0, rtol=0)

    set_scale(trainer._scaler, torch.tensor([2.0**10, 0.0]))
    trainer.train_step(loaded)
    assert trainer.skipped.total == 1
    assert scale_of(trainer._scaler).tolist() == [2.0**10, 1]
    after = lasting(trainer)
    assert any(not torch.equal(after[name], before[name]) for name in before)


@pytest.mark.filterwarnings("ignore")  # torch's tracing touches what warns
@pytest.mark.parametrize("make", [vilseg_debug, ovsegmentor_debug, clips4_debug])
def test_a_compiled_method_has_the_losses_of_a_plain_one(tmp_path, monkeypatch, make):
    """Without code generation, which takes minutes; what is traced is the same."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    recipe = make()
    small = SMALL | {"steps": 2, "average_decay": 0.5}
    recipe = replace(recipe, data=replace(recipe.data, shapes=16))
    plain = replace(recipe, train=replace(recipe.train, **small))
    fast = replace(recipe, train=replace(recipe.train, **small, compile=True))
    fit(plain, tmp_path / "plain")
    fit(fast, tmp_path / "compiled")
    for (_, one), (_, other) in zip(
        losses(tmp_path / "plain"), losses(tmp_path / "compiled"), strict=True
    ):
        # A traced method multiplies otherwise; some terms are differences near zero.
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    names = [
        load_file(tmp_path / run / "model/weights.safetensors") for run in ("plain", "compiled")
    ]
    assert names[0].keys() == names[1].keys()


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Tensors that were page-locked; without a GPU torch refuses."""
    found: list[Tensor] = []

    def pin(tensor: Tensor) -> Tensor:
        found.append(tensor.clone())
        return found[-1]

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    return found


@pytest.mark.parametrize(("name", "count"), [("vilseg", 6), ("ovsegmentor", 16), ("clips4", 3)])
def test_every_tensor_of_a_batch_is_page_locked(pinned, name, count):
    batch: Any = batches()[name]
    loaded = Loaded(batch, 0, Position(1, 2, 3))
    locked = loaded.pin_memory()
    assert len(pinned) == count
    assert (locked.stream, locked.position) == (0, Position(1, 2, 3))
    assert locked.batch is not batch
    moved: Any = locked.batch.to(torch.device("cpu"))
    assert_close(moved.images, batch.images)


def test_a_batch_of_another_kind_stays(pinned):
    class Own:
        def to(self, device: torch.device) -> Own:
            return self

    loaded = Loaded(Own(), 0, Position())
    assert loaded.pin_memory() is loaded and not pinned


@pytest.mark.parametrize(
    ("setting", "device", "expected"),
    [(True, "cuda", True), (True, "cpu", False), (False, "cuda", False)],
)
def test_only_a_gpu_has_page_locked_batches(monkeypatch, setting, device, expected):
    asked: list[bool] = []
    monkeypatch.setattr(
        "maskfree.engine.batches.build_loader",
        lambda stream, workers, pin_memory: asked.append(pin_memory) or [],
    )
    stream: Any = None
    assert list(read_batches(stream, 0, setting, torch.device(device))) == []
    assert asked == [expected]

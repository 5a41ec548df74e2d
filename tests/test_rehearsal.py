"""The dry step at the start of a run, and partners that are read only once L_mask has begun."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from maskfree.data.loader import Loaded, Position
from maskfree.engine.rehearsal import rehearse_first
from maskfree.methods.ovsegmentor.objectives_config import MaskConfig
from tiny import tiny_ovsegmentor_config
from two_processes import batches


def method_and_optimizer(start: float):
    torch.manual_seed(2)
    method = tiny_ovsegmentor_config(masks=MaskConfig(start=start)).build().train()
    method.on_train_start()
    return method, torch.optim.AdamW(method.parameters(), lr=1e-3)


def without_partners() -> list[Loaded]:
    batch = replace(batches()["ovsegmentor"], partners=None)
    return [Loaded(batch, 0, Position()), Loaded(batch, 0, Position())]


def test_first_batch_is_rehearsed_with_every_loss_and_nothing_changes(monkeypatch):
    method, optimizer = method_and_optimizer(0.75)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    taken = []
    whole = method.masks.forward

    def recorded(*arguments):
        losses = whole(*arguments)
        taken.append(losses.total.requires_grad)
        return losses

    monkeypatch.setattr(method.masks, "forward", recorded)
    given = without_partners()
    passed = list(rehearse_first(Fabric(accelerator="cpu"), method, optimizer, iter(given)))
    assert taken == [True]
    assert [one is other for one, other in zip(passed, given, strict=True)] == [True, True]

    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(weight.grad is None for weight in method.parameters())
    assert not optimizer.state


def test_nothing_is_rehearsed_once_the_loss_has_begun(monkeypatch):
    method, optimizer = method_and_optimizer(0.0)
    monkeypatch.setattr(method.masks, "forward", lambda *_: pytest.fail("a dry step"))
    assert (
        len(
            list(
                rehearse_first(
                    Fabric(accelerator="cpu"), method, optimizer, iter(without_partners())
                )
            )
        )
        == 2
    )


def test_too_little_memory_is_one_line_before_the_first_step(monkeypatch):
    method, optimizer = method_and_optimizer(0.75)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB")

    monkeypatch.setattr(method.masks, "forward", full)
    with pytest.raises(ValueError, match=r"too little memory.*train\.checkpointing") as raised:
        next(rehearse_first(Fabric(accelerator="cpu"), method, optimizer, iter(without_partners())))
    assert "\n" not in str(raised.value)
    assert all(weight.grad is None for weight in method.parameters())


def test_a_batch_without_any_partner_has_a_loss_of_zero():
    method, _ = method_and_optimizer(0.0)
    losses = method(without_partners()[0].batch.to(torch.device("cpu")))
    assert losses.terms["masks"].item() == 0
    assert losses.metrics["paired"].item() == 0
    losses.total.backward()

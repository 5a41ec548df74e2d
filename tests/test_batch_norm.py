"""Batch normalization over processes: alone it is torch's, and batches count by their size."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from maskfree.engine import batch_norm
from maskfree.engine.batch_norm import SyncedBatchNorm, sync_batch_norms


@pytest.fixture
def alone(monkeypatch):
    """One process: sums over all are its own."""
    monkeypatch.setattr(batch_norm, "all_reduce", lambda tensor: None)


def layers() -> list[tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    return [
        (lambda: nn.BatchNorm1d(5), (7, 5)),
        (lambda: nn.BatchNorm1d(5, eps=1e-2), (3, 5, 4)),
        (lambda: nn.BatchNorm2d(5, momentum=0.3), (2, 5, 3, 4)),
    ]


@pytest.mark.parametrize(("make", "shape"), layers())
def test_alone_it_is_that_of_torch(alone, make, shape):
    theirs = nn.Sequential(make())
    nn.init.normal_(theirs[0].weight)
    nn.init.normal_(theirs[0].bias)
    ours = deepcopy(theirs)
    sync_batch_norms(ours)
    assert isinstance(ours[0], SyncedBatchNorm)
    assert ours.state_dict().keys() == theirs.state_dict().keys()

    for _ in range(2):
        # A mean far from zero costs no digits.
        features = 50 + torch.randn(shape)
        inputs = [features.clone().requires_grad_() for _ in range(2)]
        outputs = [layer(each) for layer, each in zip((ours, theirs), inputs, strict=True)]
        assert_close(*outputs, atol=1e-4, rtol=1e-4)
        weights = torch.randn(shape)
        for output in outputs:
            (output * weights).sum().backward()
        assert_close(inputs[0].grad, inputs[1].grad, atol=1e-4, rtol=1e-3)
    for name, weight in theirs.named_parameters():
        assert_close(ours.get_parameter(name).grad, weight.grad, atol=1e-4, rtol=1e-4)
    assert_close(ours.state_dict(), theirs.state_dict())

    assert_close(ours.eval()(features), theirs.eval()(features))


def test_batches_of_other_sizes_count_by_their_size(monkeypatch):
    here, there = torch.randn(3, 5), 2 + 3 * torch.randn(8, 5)
    whole = torch.cat([here, there])
    # What the other process adds: its sums with their number, then its squared deviations.
    others = iter(
        [
            torch.cat([there.sum(0), torch.tensor([8.0])]),
            (there - whole.mean(0)).square().sum(0),
        ]
    )

    def all_reduce(tensor: Tensor) -> None:
        tensor.add_(next(others))

    monkeypatch.setattr(batch_norm, "all_reduce", all_reduce)
    theirs = nn.BatchNorm1d(5)
    ours = SyncedBatchNorm(deepcopy(theirs))
    assert_close(ours(here), theirs(whole)[:3], atol=1e-5, rtol=1e-5)
    assert_close(ours.running_var, theirs.running_var)
    assert_close(ours.running_mean, theirs.running_mean)


def test_every_layer_inside_is_replaced_and_nothing_else():
    module = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), "b": nn.ReLU()})
    weight = module["a"][1].weight
    sync_batch_norms(module.eval())
    assert module["a"][1].weight is weight and not module["a"][1].training
    assert [type(each) for each in module["a"]] == [nn.Linear, SyncedBatchNorm]

"""Run under torchrun by test_distributed: trains a few steps, then writes the gradient of a given global batch."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from maskfree.learner import Learner, _Sealed
from maskfree.method import Method
from maskfree.processes import launch
from maskfree.recipes import vilseg_debug
from maskfree.train import Recipe, fit
from maskfree.types import Batch, Tokens


def recipe() -> Recipe:
    debug = vilseg_debug()
    small = {"steps": 4, "batch_size": 8, "save_every": 2, "log_every": 1, "accelerator": "cpu"}
    train = replace(debug.train, **small, frozen=("text",), frozen_steps=2)
    return replace(debug, data=replace(debug.data, shapes=16), train=train)


def global_batch(size: int = 6) -> Batch:
    numbers = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 200, (size, 7), generator=numbers)
    lengths = torch.randint(3, 8, (size,), generator=numbers)
    return Batch(
        images=torch.rand(size, 3, 64, 64, generator=numbers),
        boxes=torch.zeros(size, 4),
        flipped=torch.zeros(size, dtype=torch.bool),
        captions=Tokens(ids, torch.arange(7) < lengths[:, None]),
        local_views=torch.rand(size, 2, 3, 32, 32, generator=numbers),
        twins=torch.rand(size, 3, 64, 64, generator=numbers),
        twins_flipped=torch.arange(size) % 2 == 0,
    )


def part_of(batch: Batch, rank: int, world: int) -> Batch:
    def cut(value):
        if isinstance(value, Tokens):
            return Tokens(cut(value.ids), cut(value.mask))
        return value.chunk(world)[rank] if isinstance(value, Tensor) else value

    return Batch(**{field.name: cut(getattr(batch, field.name)) for field in fields(batch)})


def gradient() -> dict[str, Tensor]:
    """Gradient of each weight after one forward and backward of this process's part of the global batch."""
    settings = replace(recipe().train, frozen_steps=0)
    fabric = launch("cpu")
    torch.manual_seed(1)
    learner = Learner(fabric, without_dropout(recipe().method.build()), settings, num_streams=1)
    report = learner.module(_Sealed(part_of(global_batch(), fabric.global_rank, fabric.world_size)))
    fabric.backward(report["loss"]["total"])
    named = {name: weight.grad for name, weight in learner.method.named_parameters() if weight.requires_grad}
    assert all(grad is not None for grad in named.values())
    return {name: grad.clone(memory_format=torch.contiguous_format) for name, grad in named.items()}


def without_dropout(method: Method) -> Method:
    """Every process draws its own dropout, one process would draw another for the whole batch."""
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in method.modules():
        if hasattr(layer, "dropout_prob"):
            layer.dropout_prob = 0.0
    return method


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    assert fit(recipe(), out / "run") == 4
    assert fit(recipe(), out / "run", resume_run=True) == 4
    found = gradient()
    rank = torch.distributed.get_rank()
    save_file(found, out / f"gradient-{rank}.safetensors")

"""Run under torchrun by test_distributed: trains a few steps, then writes the gradient of a given
global batch.
"""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from maskfree.distributed import launch
from maskfree.engine.config import Recipe
from maskfree.engine.forward import Sealed
from maskfree.engine.train import fit
from maskfree.engine.trainer import Trainer
from maskfree.losses.mask_arithmetic import PAPER
from maskfree.method import Method
from maskfree.method_config import MethodConfig
from maskfree.methods.clips4.batch import CLIPS4Batch
from maskfree.methods.ovsegmentor.batch import EntityTexts, OVSegmentorBatch, Partners
from maskfree.methods.ovsegmentor.mask_matching import MATCHINGS
from maskfree.methods.ovsegmentor.objectives_config import EntityConfig, MaskConfig
from maskfree.methods.vilseg.batch import ViLSegBatch
from maskfree.nn import binding
from maskfree.recipes import ovsegmentor_released, vilseg_debug
from maskfree.recipes.ovsegmentor import HEAD
from maskfree.types import TensorRecord, Tokens
from tiny import tiny_clips4_config, tiny_ovsegmentor_config

WITH_HEADS = ("ovsegmentor", "ovsegmentor as released")
"""Methods with the recipes' heads, which have batch normalization."""


def recipe() -> Recipe:
    debug = vilseg_debug()
    small = {"steps": 4, "batch_size": 8, "save_every": 2, "log_every": 1, "accelerator": "cpu"}
    train = replace(debug.train, **small, frozen=("text",), frozen_steps=2)
    return replace(debug, data=replace(debug.data, shapes=16), train=train)


def methods() -> dict[str, tuple[MethodConfig, TensorRecord]]:
    """What is compared, each with a global batch.

    OVSegmentor has its recipes' own heads, with batch normalization.
    """
    plus = tiny_clips4_config(
        contrast=None, embedding_weight=None, semantic=None, pseudo_label_weight=1.0
    )
    given = batches()
    # Random groups reach no 0.65.
    arithmetic = replace(PAPER, threshold=0.5)
    MATCHINGS["paper"] = replace(MATCHINGS["paper"], arithmetic=arithmetic)
    heads = {"image_projection": HEAD, "text_projection": HEAD}
    entity = EntityConfig(num_heads=3, bridge=HEAD)
    released = replace(ovsegmentor_released().method.image, weights=None)
    sizes = {"side_px": 64, "dim": 24, "num_tokens": 6, "num_groups": 4, "drop_path": 0.0}
    return {
        "vilseg": (recipe().method, given["vilseg"]),
        "ovsegmentor": (
            tiny_ovsegmentor_config(
                **heads, entity=entity, masks=MaskConfig(start=0.0, weight=1.0)
            ),
            given["ovsegmentor"],
        ),
        "ovsegmentor as released": (
            tiny_ovsegmentor_config(
                **heads,
                image=replace(released, **sizes, depths=(1, 1)),
                entity=entity,
                masks=None,
                form="released",
            ),
            given["ovsegmentor"],
        ),
        "ovsegmentor with labels": (
            tiny_ovsegmentor_config(
                entity=EntityConfig(objective="labels"),
                masks=MaskConfig(start=0.0, weight=1.0, objective="groups"),
            ),
            given["ovsegmentor"],
        ),
        "ovsegmentor with words": (
            tiny_ovsegmentor_config(
                entity=EntityConfig(objective="words", num_heads=3), masks=None
            ),
            given["ovsegmentor"],
        ),
        "clips4": (tiny_clips4_config(), given["clips4"]),
        "maskclip+": (plus, given["clips4"]),
    }


def batches(size: int = 6) -> dict[str, TensorRecord]:
    """A global batch of each method, with the same photos and captions."""
    numbers = torch.Generator().manual_seed(3)

    def texts(number: int) -> Tokens:
        ids = torch.randint(5, 200, (number, 7), generator=numbers)
        lengths = torch.randint(3, 8, (number,), generator=numbers)
        return Tokens(ids, torch.arange(7) < lengths[:, None])

    images, captions = torch.rand(size, 3, 64, 64, generator=numbers), texts(size)
    few = torch.arange(size) % 3 != 1
    # One process has three partners and six hidden words, the other one has one of each.
    paired = torch.tensor([True, True, True, False, True, False])
    targets = torch.full((size, 7), -1)
    targets[:3, 1:3], targets[4, 2] = 5, 9
    return {
        "vilseg": ViLSegBatch(
            images=images,
            captions=captions,
            local_views=torch.rand(size, 2, 3, 32, 32, generator=numbers),
            augmented_view=torch.rand(size, 3, 64, 64, generator=numbers),
            augmented_flipped=torch.arange(size) % 2 == 0,
        ),
        "ovsegmentor": OVSegmentorBatch(
            images=images,
            captions=captions,
            entities=EntityTexts(
                questions=texts(size),
                answers=texts(size),
                masked=torch.arange(size) != 4,
                targets=targets,
                labels=texts(2 * size),
                labeled=torch.stack([torch.ones_like(few), few], dim=1),
            ),
            partners=Partners(torch.rand(size, 3, 64, 64, generator=numbers), texts(size), paired),
        ),
        "clips4": CLIPS4Batch(
            images=torch.rand(size, 2, 3, 64, 64, generator=numbers),
            regions=torch.randint(0, 3, (size, 2, 8, 8), generator=numbers, dtype=torch.uint8),
            teacher=F.normalize(torch.randn(size, 2, 18, 8, 8, generator=numbers), dim=2).half(),
        ),
    }


def part_of(batch: TensorRecord, rank: int, world: int) -> TensorRecord:
    def cut(value):
        if is_dataclass(value):
            return replace(
                value, **{field.name: cut(getattr(value, field.name)) for field in fields(value)}
            )
        return value.chunk(world)[rank] if isinstance(value, Tensor) else value

    return cut(batch)


def gradient(config: MethodConfig, batch: TensorRecord) -> dict[str, Tensor]:
    """Gradient of each weight of a method after one forward and backward of this process's part of
    the global batch.
    """
    settings = replace(recipe().train, frozen=(), frozen_steps=0)
    fabric = launch("cpu")
    torch.manual_seed(1)
    trainer = Trainer(fabric, without_chance(config.build()), settings, num_streams=1)
    report = trainer.module(Sealed(part_of(batch, fabric.global_rank, fabric.world_size)))
    fabric.backward(report["loss"]["total"])
    named = {
        name: weight.grad
        for name, weight in trainer.method.named_parameters()
        if weight.requires_grad
    }
    assert all(grad is not None for grad in named.values())
    return {name: grad.clone(memory_format=torch.contiguous_format) for name, grad in named.items()}


def without_chance(method: Method) -> Method:
    """Every process draws its own dropout and noise, one process would draw another for the whole
    batch.
    """
    binding.gumbel_noise = torch.zeros_like
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
    for name, (config, batch) in methods().items():
        found = gradient(config, batch)
        save_file(found, out / f"gradient-{torch.distributed.get_rank()}-{name}.safetensors")

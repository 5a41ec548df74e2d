"""Training steps of the papers' recipes at full size on one GPU: peak memory and photos a second.

Networks have random weights, photos are drawn and one batch serves all steps, so that nothing is
downloaded and only the GPU is measured. Captions of drawn photos are shorter than most, each photo
is one region, and the mask loss is on, as at the end of a run. Takes less than six minutes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from lightning_fabric import Fabric
from torch.nn import functional as F

from harness import RESULTS, report, resident_bytes
from maskfree.data.cache.prototypes import Prototypes
from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.data.config import DataConfig
from maskfree.data.examples import DECODE_PX, decode
from maskfree.data.loader import Loaded
from maskfree.data.shards import find_shards, read_shards
from maskfree.distributed import launch
from maskfree.engine.batches import drawn_shapes, read_batches, stream_of
from maskfree.engine.config import Recipe
from maskfree.engine.start import build_method
from maskfree.engine.trainer import Trainer
from maskfree.recipes import RECIPES
from maskfree.text.tokenize import Tokenizer

PHOTOS = {"vilseg": 96, "ovsegmentor": 128, "clips4": 8}
"""Photos of a GPU: the paper's batch of CLIP-S4, of the others what 80 GB should hold."""
SMALL_PHOTOS = 4
MANY_STEPS = 1000
"""Steps of the training that the timed ones begin."""
TEACHER_SIDE = 28
"""Patches along the longer side of the teacher's maps."""
CLASSES, SEGMENTS = 20, 400
"""Known classes of VOC, and segments that unknown classes are drawn from."""


@dataclass(frozen=True)
class Checked:
    """What a recipe took."""

    recipe: str
    photos: int
    millions_of_parameters: float
    seconds_per_step: float | None
    """None if the GPU has too little memory."""
    peak_gigabytes: float


def main(
    recipes: tuple[str, ...] = tuple(PHOTOS),
    photos: int | None = None,
    steps: int = 5,
    small: bool = False,
    precision: Literal["bf16-mixed", "16-mixed", "32-true"] = "bf16-mixed",
    compile: bool = False,
    out: Path = RESULTS,
) -> None:
    """Measure training steps of recipes, and write them to OUT/benchmark-gpu-check.json.

    Args:
        recipes: Names of recipes.
        photos: Photos of a step; by default what suits each recipe.
        steps: Timed steps, after one that warms up.
        small: Take the debug recipes, which need no GPU.
        precision: Floating point precision.
        compile: Whether to compile the methods.
        out: Folder for the results.
    """
    fabric = launch(devices="1", precision=precision)
    rows = []
    for name in recipes:
        number = photos or (SMALL_PHOTOS if small else PHOTOS[name])
        recipe = RECIPES[f"{name}_debug" if small else name]()
        # Some recipes count epochs, for which there is no index.
        train = replace(recipe.train, steps=MANY_STEPS, batch_size=number)
        train = replace(train, compile=compile, precision=precision)
        with tempfile.TemporaryDirectory() as folder:
            recipe = without_files(replace(recipe, train=train), Path(folder))
            rows.append(check(fabric, name, recipe, Path(folder), steps))

    print_and_write(rows, precision, fabric.device, out)


def without_files(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe on drawn photos and random weights, with all its losses from the first step."""
    method: Any = without_weights(recipe.method)
    if getattr(method, "masks", None) is not None:
        method = replace(method, masks=replace(method.masks, start=0.0))
    if recipe.data.index:
        method = replace(method, entities="shapes")

    if getattr(method, "prototypes", None) is not None:
        changes = {"teacher": str(folder / "teacher"), "prototypes": str(folder / "prototypes")}
        method = replace(method, **changes, segments=None)
        random_prototypes(method.embed_dim).write(folder / "prototypes")

    index = "shapes" if recipe.data.index else ""
    data = DataConfig(shapes=2 * recipe.train.batch_size, index=index, workers=0)
    return replace(recipe, method=method, data=data, init=None)


def without_weights(config: Any) -> Any:
    """The same settings, and those within them, without pretrained weights."""
    changes = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name == "weights":
            changes["weights"] = None
        elif is_dataclass(value):
            changes[each.name] = without_weights(value)
    return replace(config, **changes)


def random_prototypes(dim: int) -> Prototypes:
    """Prototypes of as many classes as VOC has."""
    names = tuple(f"class {number}" for number in range(CLASSES))
    classes = F.normalize(torch.randn(CLASSES, dim), dim=1)
    return Prototypes(
        names, classes, classes.clone(), F.normalize(torch.randn(SEGMENTS, dim), dim=1)
    )


def write_teacher(shards: tuple[str, ...], folder: Path, dim: int) -> None:
    """Write random maps of a teacher for all photos of some shards."""
    folder.mkdir()
    for example in read_shards(find_shards(shards)):
        width, height = decode(example, DECODE_PX).size
        scale = TEACHER_SIDE / max(width, height)
        embeddings = torch.randn(dim, round(height * scale), round(width * scale))
        TeacherMaps(folder).write(example.key, F.normalize(embeddings, dim=0))


def check(fabric: Fabric, name: str, recipe: Recipe, folder: Path, steps: int) -> Checked:
    """Time training steps on one batch."""
    data = drawn_shapes(fabric, recipe.data, folder / "data")
    method: Any = recipe.method
    if getattr(method, "teacher", None) is not None:
        write_teacher(data.shards, Path(method.teacher), method.embed_dim)

    transform = method.build_transform(Tokenizer.from_source(str(folder / "data")))
    stream = stream_of(fabric, recipe.train, data, transform)
    loaded = next(read_batches(stream, 0, True, fabric.device))

    reset_peak(fabric.device)
    trainer = Trainer(fabric, build_method(recipe, None), recipe.train, num_streams=1)
    weights = sum(weight.numel() for weight in trainer.method.parameters())
    seconds = None
    try:
        times = [timed_step(trainer, loaded, fabric.device) for _ in range(steps + 1)]
        seconds = statistics.median(times[1:])
    except torch.OutOfMemoryError:
        pass  # its row says so

    if trainer.skipped.total and recipe.train.precision != "16-mixed":
        raise ValueError(f"{name}: the gradient of {trainer.skipped.total} steps is not finite")
    peak = peak_bytes(fabric.device) / 2**30
    return Checked(name, recipe.train.batch_size, weights / 1e6, seconds, peak)


def timed_step(trainer: Trainer, loaded: Loaded, device: torch.device) -> float:
    """Seconds of one training step."""

    def again() -> Iterator[Loaded]:
        while True:
            yield loaded

    start = time.perf_counter()
    trainer.train_step(again())
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def reset_peak(device: torch.device) -> None:
    """Begin a new peak of memory, where the device counts one."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: torch.device) -> int:
    """Peak memory of the GPU since `reset_peak`, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident_bytes("VmHWM")


def print_and_write(rows: list[Checked], precision: str, device: torch.device, out: Path) -> None:
    """Write the rows with what they depend on."""
    seconds, written = {}, []
    for row in rows:
        speed = None
        if row.seconds_per_step is not None:
            seconds[row.recipe] = row.seconds_per_step
            speed = row.photos / row.seconds_per_step
        written.append({**vars(row), "photos_per_second": speed})
        told = f"{speed:.1f} photos/s" if speed else "out of memory"
        size = f"{row.millions_of_parameters:.0f} M parameters"
        print(f"{row.recipe}: {told}, {row.peak_gigabytes:.1f} GB at {row.photos} photos, {size}")

    place = "cpu"
    if device.type == "cuda":
        place = torch.cuda.get_device_name()
    report("gpu-check", seconds, [], {"precision": precision, "device": place}, out, written)


if __name__ == "__main__":
    tyro.cli(main)

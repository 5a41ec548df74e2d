"""Training loop on Lightning Fabric, in one process or several, with exact resuming."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from maskfree.data.examples import counted
from maskfree.data.loader import Loaded, Stream
from maskfree.data.order import seed_of
from maskfree.distributed import any_process, launch, only_run
from maskfree.engine import run_state
from maskfree.engine.batches import (
    drawn_shapes,
    one_line_for_lost_workers,
    read_batches,
    stream_of,
)
from maskfree.engine.config import Recipe
from maskfree.engine.kept_models import FOLDERS, KeptModels, Measure
from maskfree.engine.logger import MetricLogger
from maskfree.engine.rehearsal import rehearse_first
from maskfree.engine.start import Start, build_method, with_teacher
from maskfree.engine.trainer import Trainer
from maskfree.files.outputs import check_run_folders
from maskfree.hub import checkpoint
from maskfree.signals import StopSignals
from maskfree.text.tokenize import Tokenizer

log = logging.getLogger(__name__)

LOG_SETTINGS = ("train.log_every", "train.save_every", "train.milestones", "train.pin_memory")
"""Settings without influence on the training."""
RESUME_SETTINGS = (
    *LOG_SETTINGS,
    "train.steps",
    "train.epochs",
    "train.warm_up_steps",
    "train.learning_rate",
    "validation",
    # Other processes may go on where they read as many data streams, see `positions_from`.
    "train.devices",
    "data.workers",
)
"""Settings that may change when a run is resumed."""


def fit(
    recipe: Recipe,
    out: Path,
    resume_run: bool = False,
    may_change: Sequence[str] = RESUME_SETTINGS,
    measure: Measure | None = None,
) -> int:
    """Train a recipe and write the finished model to the folder `model` in the run folder.

    SIGINT or SIGTERM stops training early, with the state saved. A resumed run goes on from the
    last saved state, also after a kill, with the same losses as an uninterrupted run.

    Args:
        recipe: Settings of the run.
        out: Folder of the run.
        resume_run: Whether to resume the run in `out`.
        may_change: Dotted names of settings, or of groups of them, that may change on resuming.
        measure: Measure of `validation.benchmark`, such as
            `maskfree.evaluation.during_training.BenchmarkScore`.

    Returns:
        Number of steps completed; fewer than the recipe's if a signal stopped training.

    Raises:
        ValueError: The settings do not fit each other, the data or the run in `out`; or gradients
            were not finite in too many steps in a row.
        OSError: The data cannot be read, or `out` cannot be written.
    """
    recipe = recipe.with_steps()
    config, settings = recipe.train, run_state.settings_of(recipe)
    # Invalid settings are reported before any process is launched.
    _check(recipe, out)
    benchmark = recipe.validation.benchmark
    if benchmark and measure is None:
        raise ValueError(f"validation.benchmark is {benchmark}: give its measure, too")

    fabric = launch(config.accelerator, config.devices, config.precision)
    with only_run(fabric, out):
        changed = run_state.check_run(out, settings, may_change, resume_run)
        return _fit(fabric, recipe, out, (settings, changed), measure)


def _fit(
    fabric: Fabric,
    recipe: Recipe,
    out: Path,
    record: tuple[dict[str, Any], dict[str, Any]],
    measure: Measure | None,
) -> int:
    """Train in one of the processes that hold the run folder; see `fit`.

    `record` holds the settings, and those of them that change on resuming.
    """
    config, data = recipe.train, recipe.data
    start = Start.find(recipe.init) if recipe.init else None

    if data.shapes:
        data = drawn_shapes(fabric, data, out / "data")

    tokenizer = _tokenizer(recipe, start, out)
    recipe = with_teacher(recipe, start)
    step, tensors = run_state.load_state(out) or (0, None)
    if step > config.steps:
        raise ValueError(f"train.steps is {config.steps}, but the run has done {step} already")
    stream = stream_of(fabric, config, data, recipe.method.build_transform(tokenizer))

    # All processes start from the same weights.
    torch.manual_seed(seed_of(config.seed, "weights"))
    trainer = Trainer(fabric, build_method(recipe, start), config, stream.num_streams, step)

    if tensors is not None:
        trainer.restore(tensors)
        log.info("going on after step %d of %d", step, config.steps)
    kept = KeptModels(fabric, recipe, trainer, tokenizer, out, measure)

    # Every process has read all that it needs before the first one writes.
    fabric.barrier()
    if fabric.is_global_zero:
        settings, changed = record
        run_state.write_record(out, recipe.name, settings, fabric.world_size, step, changed)

    if step < config.steps or kept.is_due():
        # Continue with the samples that follow the saved positions.
        stream.go_to(trainer.positions, step * config.accumulate, config.steps * config.accumulate)
        _train(fabric, trainer, stream, kept, out)

    _tell_left_out(fabric, trainer)

    if fabric.is_global_zero and trainer.step == config.steps:
        kept.finish()
        log.info("finished: %s", out / "model")
    elif fabric.is_global_zero:
        log.info("stopped after step %d of %d", trainer.step, config.steps)

    fabric.barrier()
    return trainer.step


def _check(recipe: Recipe, out: Path) -> None:
    """Raise ValueError if settings are invalid or the run would overwrite its inputs."""
    recipe.train.check()
    recipe.data.check()
    data = recipe.data
    inputs = [recipe.init, *data.shards, *data.images, data.index]
    if recipe.validation.benchmark:
        inputs.append(recipe.validation.benchmark[1])
    check_run_folders(out, ("state", *FOLDERS), inputs)


def _tokenizer(recipe: Recipe, start: Start | None, out: Path) -> Tokenizer:
    """Tokenizer of the run; a checkpoint's own keeps the text length of its text encoder."""
    if start is not None:
        return Tokenizer.from_file(start.model / checkpoint.TOKENIZER)
    if recipe.data.shapes:
        return Tokenizer.from_source(str(out / "data"))

    try:
        return Tokenizer.from_source(recipe.method.tokenizer_source())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; another tokenizer is named by --method.tokenizer"
        ) from error


def _train(fabric: Fabric, trainer: Trainer, stream: Stream, kept: KeptModels, out: Path) -> None:
    """Open the log and the data workers, and train."""
    config = trainer.config
    # Only the first process writes logs.
    monitor = None
    if fabric.is_global_zero:
        monitor = MetricLogger(out, config.steps, trainer.step, config.batch_size)

    loaded = read_batches(stream, stream.data.workers, config.pin_memory, fabric.device)
    try:
        with (
            StopSignals(finish=True) as signals,
            one_line_for_lost_workers(),
            closing(loaded) as batches,
        ):
            rehearsed = rehearse_first(fabric, trainer.method, trainer.optimizer, batches)
            _loop(fabric, trainer, rehearsed, kept, monitor, out, signals)
    finally:
        if monitor:
            monitor.close()


def _loop(
    fabric: Fabric,
    trainer: Trainer,
    batches: Iterator[Loaded],
    kept: KeptModels,
    monitor: MetricLogger | None,
    out: Path,
    signals: StopSignals,
) -> None:
    """Train until the last step or a signal in any process; log and save in between."""
    config = trainer.config
    asked = any_process(fabric)
    # What an earlier start was stopped or killed before.
    kept.keep(monitor)

    last = False
    while trainer.step < config.steps and not last:
        report = trainer.train_step(batches)
        step = trainer.step
        save = step % config.save_every == 0 or step == config.steps or kept.is_due()

        # The first step is logged too, and every step with a saved state.
        if step % config.log_every == 0 or save or step == 1:
            loss, metrics = (_shared_mean(fabric, report[kind]) for kind in ("loss", "metrics"))
            if monitor:
                broken = sum(position.broken for position in trainer.positions)
                monitor.record(step, loss, metrics, trainer.rate, broken, trainer.skipped.total)
                for concern in trainer.method.concerns(metrics):
                    log.warning("step %d: %s", step, concern)
            if not (trainer.skipped.in_a_row or math.isfinite(loss["total"])):
                raise ValueError(
                    f"the loss is {loss} at step {step}: try a smaller train.learning_rate"
                )

        # All processes must take the same last step, and a launcher may signal any of them.
        last = asked(signals.number is not None)

        if save or last:
            tensors = trainer.tensors()
            if fabric.is_global_zero:
                run_state.save_state(out, step, tensors)
            fabric.barrier()

        # After the state is saved: a kill loses no step to an evaluation. A stop does not wait for
        # one either, unless the run is over.
        if not last or step == config.steps:
            kept.keep(monitor)


def _tell_left_out(fabric: Fabric, trainer: Trainer) -> None:
    """Log unusable samples by reason, and skipped steps; collective over processes."""
    total, by_reason = trainer.broken()
    if fabric.is_global_zero and total:
        log.warning("samples left out, in all passes: %s", counted(by_reason, total))
    if trainer.skipped.total:
        log.warning("skipped %d of %d steps", trainer.skipped.total, trainer.step)


def _shared_mean(fabric: Fabric, values: dict[str, Tensor]) -> dict[str, float]:
    """Mean of each value over the processes."""
    if not values:
        return {}
    stacked = fabric.all_reduce(torch.stack([value.float() for value in values.values()]))
    assert isinstance(stacked, Tensor)  # Fabric's annotation allows nests of tensors
    return dict(zip(values, stacked.tolist(), strict=True))

"""Models that a run writes: the finished one, those of milestones, and the best on a benchmark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from maskfree.engine import run_state
from maskfree.engine.config import Recipe
from maskfree.engine.logger import VALIDATION, MetricLogger
from maskfree.engine.trainer import Trainer
from maskfree.files.atomic import read_json, replace_text
from maskfree.files.leftovers import replace_folder, whole
from maskfree.hub import checkpoint
from maskfree.text.tokenize import Tokenizer

FOLDERS = ("model", "best", "milestones", "candidate")
"""Folders of a run that hold models."""

Measure = Callable[[Path, Fabric], dict[str, Any]]
"""Measures a checkpoint; collective over processes. The result has at least "mean_iou"."""


class KeptModels:
    """Writes the models of a run at the steps where they are due."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        trainer: Trainer,
        tokenizer: Tokenizer,
        out: Path,
        measure: Measure | None,
    ):
        """Find what earlier starts of the run have kept.

        Args:
            fabric: The launched processes.
            recipe: Settings of the run.
            trainer: Trainer of the run.
            tokenizer: Tokenizer of the run.
            out: Folder of the run.
            measure: Measure that the best model is selected by; None selects none.
        """
        self._fabric, self._recipe, self._trainer = fabric, recipe, trainer
        self._tokenizer, self._out, self._measure = tokenizer, out, measure

        self._written = {int(path.name[-8:]) for path in (out / "milestones").glob("step-*")}
        self._measured = set[int]()
        if (out / VALIDATION).exists():
            rows = (out / VALIDATION).read_text(encoding="utf-8").splitlines()
            self._measured = {step for row in rows if (step := _step_of(row)) <= trainer.step}

    def is_due(self) -> bool:
        """Tell whether a model of the current step is to be kept or measured, and is not yet.

        Returns:
            True if so.
        """
        return self._is_milestone() or self._is_measured()

    def _is_milestone(self) -> bool:
        """Whether the model of the current step is to be kept, and is not yet."""
        step = self._trainer.step
        return step in self._recipe.train.milestones and step not in self._written

    def _is_measured(self) -> bool:
        """Whether the model of the current step is to be measured, and is not yet."""
        step, steps = self._trainer.step, self._recipe.train.steps
        if self._measure is None or not step or step in self._measured:
            return False
        return step % self._recipe.validation.every == 0 or step == steps

    def keep(self, monitor: MetricLogger | None) -> None:
        """Keep and measure the model of the current step, if that is due; collective.

        Args:
            monitor: Log of the first process.
        """
        step = self._trainer.step
        if self._is_milestone():
            self._write(self._out / "milestones" / f"step-{step:08d}")
            self._written.add(step)

        if self._is_measured():
            self._keep_best(monitor)
            self._measured.add(step)

    def finish(self) -> None:
        """Write the finished model."""
        self._write(self._out / "model")

    def _keep_best(self, monitor: MetricLogger | None) -> None:
        """Measure the current model, and keep it if none before was as good."""
        assert self._measure is not None
        candidate, best = self._out / "candidate", self._out / "best"

        # What is measured is what a user would load.
        self._write(candidate)
        self._fabric.barrier()
        found = {"step": self._trainer.step} | self._measure(candidate, self._fabric)
        self._fabric.barrier()

        if self._fabric.is_global_zero:
            is_best = found["mean_iou"] > _mean_iou_of(best)
            if is_best:
                record = read_json(candidate / "run.json") | {"validation": found}
                replace_text(candidate / "run.json", json.dumps(record, indent=2) + "\n")
                replace_folder(candidate, best)
            else:
                shutil.rmtree(candidate)
            if monitor:
                monitor.record_validation(found, is_best)
        self._fabric.barrier()

    def _write(self, folder: Path) -> None:
        """Write the inference parts of the trained method to a checkpoint, in the first process."""
        if not self._fabric.is_global_zero:
            return

        # Training-only parts, such as decoders, are left out.
        recipe = self._recipe
        config = recipe.method.for_inference()
        method = config.build()

        trained = self._trainer.final_weights()
        method.load_state_dict({name: trained[name] for name in method.state_dict()})

        run = run_state.read_record(self._out) | {
            "templates": list(recipe.templates),
            "inference": asdict(recipe.inference),
            "steps": self._trainer.step,
        }
        checkpoint.save(folder, method, config, self._tokenizer, run, recipe.train.storage)


def _step_of(row: str) -> float:
    """Step of a row of the log; infinity for one that was cut short."""
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _mean_iou_of(best: Path) -> float:
    """Mean IoU of the best model so far; -1 if there is none."""
    record = whole(best) / "run.json"
    if not record.exists():
        return -1.0
    return read_json(record)["validation"]["mean_iou"]

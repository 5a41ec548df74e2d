"""Run under torchrun by test_stopping: one run as a whole, then the same with stops at steps 2 and
4.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from maskfree.engine import logger
from maskfree.engine.config import Recipe
from maskfree.engine.train import fit
from maskfree.recipes import vilseg_debug

record = logger.MetricLogger.record


def pausing(self: logger.MetricLogger, step: int, *values: Any, **named: Any) -> None:
    """Report a step, then wait to be told to go on."""
    record(self, step, *values, **named)
    if step in (2, 4) and out.name == "run":
        end = time.monotonic() + 120
        while not (folder / f"go-{step}").exists() and time.monotonic() < end:
            time.sleep(0.01)


def recipe() -> Recipe:
    """A run of six steps with one data worker in each process."""
    debug = vilseg_debug()
    small = {"steps": 6, "batch_size": 8, "save_every": 50, "log_every": 2, "accelerator": "cpu"}
    return replace(
        debug, data=replace(debug.data, shapes=16, workers=1), train=replace(debug.train, **small)
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    (folder / f"rank-{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    logger.MetricLogger.record = pausing
    out = folder / "whole"
    if not out.exists():
        assert fit(recipe(), out) == 6
    out = folder / "run"
    if not (out / "run.json").exists():
        assert fit(recipe(), out) in (2, 3)
    fit(recipe(), out, resume_run=True)

"""Training log: metrics.jsonl, TensorBoard, and a progress bar or log lines."""

from __future__ import annotations

import datetime
import json
import logging
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from torch.utils.tensorboard import SummaryWriter

from maskfree.files.atomic import replace_text
from maskfree.files.leftovers import writing

log = logging.getLogger(__name__)

VALIDATION = "validation.jsonl"
"""Log of the evaluations during training."""


class MetricLogger:
    """Writes the metrics of a run to metrics.jsonl, TensorBoard and the terminal.

    Rows beyond the completed steps, which a killed run may have left, are dropped.
    """

    def __init__(self, out: Path, steps: int, done: int, photos_per_step: int):
        """Open the log files and start the progress bar.

        Args:
            out: Folder of the run.
            steps: Total number of steps of the run.
            done: Steps completed before this start; 0 for a new run.
            photos_per_step: Photos of one step, over all processes.
        """
        self.steps, self.photos_per_step = steps, photos_per_step

        # A killed run may have logged steps after its last saved state.
        self._path, self._validation = out / "metrics.jsonl", out / VALIDATION
        for rows in (self._path, self._validation):
            if rows.exists():
                written = rows.read_text(encoding="utf-8").splitlines(True)
                kept = [row for row in written if _step_of(row) <= done]
                replace_text(rows, "".join(kept))
        self._rows = self._path.open("a", encoding="utf-8", buffering=1)

        self._board_folder = out / "tensorboard"
        with writing(self._board_folder):
            self._board = SummaryWriter(str(self._board_folder), purge_step=done + 1)

        # Errors of TensorBoard's writer thread are raised in its next call instead.
        self._other_hook, threading.excepthook = threading.excepthook, _leave_errors_of_the_disk

        # The progress bar goes to stderr, and only where that is a terminal.
        console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"), console=console
        )
        self._task = self._bar.add_task("", total=steps, completed=done, left="")
        self._display: Live | None = None
        if console.is_terminal:
            self._display = Live(self._bar, console=console)
            self._display.start()
        self._last_step, self._last_time = done, time.monotonic()

    def record(
        self,
        step: int,
        loss: Mapping[str, float],
        metrics: Mapping[str, float],
        rate: float,
        broken: int,
        skipped: int = 0,
    ) -> None:
        """Write one row of metrics.

        Args:
            step: Number of steps completed.
            loss: Total loss and its terms, by name.
            metrics: Other metrics of the method, by name.
            rate: Current learning rate.
            broken: Number of samples left out so far because they could not be used.
            skipped: Number of steps skipped so far because their gradient was not finite.
        """
        now = time.monotonic()
        # Mean time per step since the last row.
        seconds = (now - self._last_time) / max(step - self._last_step, 1)
        self._last_step, self._last_time = step, now
        speed = self.photos_per_step / max(seconds, 1e-9)
        left = str(datetime.timedelta(seconds=round(seconds * (self.steps - step))))

        counts = {"photos_per_second": round(speed, 2), "broken": broken, "skipped": skipped}
        row = {"step": step, "loss": _finite(loss), "metrics": _finite(metrics), "rate": rate}
        with writing(self._path):
            self._rows.write(json.dumps(row | counts) + "\n")

        # TensorBoard groups scalars by the prefix of their name.
        scalars = {f"loss/{name}": value for name, value in loss.items()}
        scalars |= {f"metrics/{name}": value for name, value in metrics.items()}
        scalars |= {"rate": rate, **counts}
        with writing(self._board_folder):
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)

        # The same values for the terminal.
        text = f"step {step}/{self.steps} · {_shown(loss)} · {speed:.3g} photos/s"
        if broken:
            text += f" · {broken} broken samples skipped"
        if skipped:
            text += f" · {skipped} steps skipped"
        if metrics:
            text += f" · metrics: {_shown(metrics)}"

        if self._display:
            self._bar.update(self._task, completed=step, left=f"{left} left")
            self._display.update(Group(self._bar, text.replace(" · ", "\n")))
        else:
            log.info("%s · rate %.3g · %s left", text, rate, left)

    def record_validation(self, found: Mapping[str, Any], is_best: bool) -> None:
        """Write one row of an evaluation during training.

        Args:
            found: Step, mean IoU, and the benchmark and number of photos that it was measured on.
            is_best: Whether the model is the best so far.
        """
        row = {name: found[name] for name in ("step", "mean_iou", "benchmark", "photos")}
        written = ""
        if self._validation.exists():
            written = self._validation.read_text(encoding="utf-8")
        replace_text(self._validation, written + json.dumps(row | {"best": is_best}) + "\n")
        with writing(self._board_folder):
            self._board.add_scalar("validation/mean_iou", found["mean_iou"], found["step"])

        text = "step {step}: mean IoU {mean_iou:.4f} on {photos} photos of {benchmark}"
        log.info("%s%s", text.format(**row), ", the best so far" * is_best)
        # The time of evaluations is none of the steps'.
        self._last_step, self._last_time = found["step"], time.monotonic()

    def close(self) -> None:
        """Close the log files and restore the terminal."""
        if self._display:
            self._display.stop()

        try:
            with writing(self._board_folder):
                self._board.close()
        finally:
            threading.excepthook = self._other_hook
            with writing(self._path):
                self._rows.close()


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values by name, with None for NaN and infinity, which JSON does not have."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _shown(values: Mapping[str, float]) -> str:
    """Values by name as text."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _leave_errors_of_the_disk(arguments: threading.ExceptHookArgs) -> None:
    """Exception hook of threads that skips OSErrors.

    TensorBoard's thread would print them as a traceback; it raises them again in the next call.
    """
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)


def _step_of(row: str) -> float:
    """Step of a row; infinity for a row that was cut short when the run was killed."""
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")

"""Starting commands as processes, and sending signals to them at a known step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE_SECONDS = 120  # for what takes seconds when nothing else runs

PAUSING = """
import sys, time
from pathlib import Path
from maskfree.engine import logger as monitor

record = monitor.MetricLogger.record

def pausing(self, step, *arguments, **named):
    record(self, step, *arguments, **named)
    end = time.monotonic() + 120
    while step == {step} and not Path({go!r}).exists() and time.monotonic() < end:
        time.sleep(0.01)

monitor.MetricLogger.record = pausing
"""
"""Code that makes the first process of a training wait after a step for a file."""

COMMAND = """
import sys
from maskfree.cli import main

main(sys.argv[1:])
"""


def start(
    code: str, *arguments: object, launcher: Sequence[str] = (), **options
) -> subprocess.Popen[str]:
    """Run code in a Python of its own, as the head of its own process group."""
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [*launcher, sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        start_new_session=True,
        **(piped | options),
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until a condition holds, while a process lives."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def has_step(out: Path, step: int) -> bool:
    """Whether a training has reported a step."""
    rows = out / "metrics.jsonl"
    return rows.exists() and f'"step": {step},' in rows.read_text()


def losses(out: Path) -> list[tuple[int, dict[str, float]]]:
    """Steps and losses that a training has reported."""
    rows = [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def children(pid: int) -> set[int]:
    """Processes that a process has started and that still live."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return {
        int(line.split()[0]) for line in found.stdout.splitlines() if "Z" not in line.split()[1]
    }


def is_alive(pid: int) -> bool:
    """Whether a process lives and is no zombie."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(found.stdout.strip()) and "Z" not in found.stdout


def send_to_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to a process and all that it has started."""
    os.killpg(process.pid, number)

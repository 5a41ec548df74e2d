"""Cold start: the command `maskfree segment` in fresh processes, in CPU seconds.

Steps inside a process, and the bare import of torch, are measured in turn with the command.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import tyro
from PIL import Image

from harness import RESULTS, Ratio, report

WORDS = ("dog", "grass", "sky")
# torch is imported first, so that the steps after it are ours.
PROGRAM = """
import json, sys, time
marks = [time.process_time()]
import torch; marks.append(time.process_time())
import maskfree; maskfree.load; marks.append(time.process_time())
model = maskfree.load(sys.argv[1]); marks.append(time.process_time())
model = model.with_words(sys.argv[3:]); marks.append(time.process_time())
model(sys.argv[2]); marks.append(time.process_time())
print(json.dumps([b - a for a, b in zip(marks, marks[1:])]))
"""
STEPS = ("import torch", "import maskfree", "load", "words", "first label map")
COMMAND = "maskfree segment, one photo"
GOAL = "at most 2.5"


def main(
    model: str = "pocket", photo: Path | None = None, repeats: int = 5, results: Path = RESULTS
) -> None:
    """Measure the command and its steps in fresh processes.

    Args:
        model: Name of a model or folder of a checkpoint.
        photo: Photo to label; without one, a gray one of 640x480.
        repeats: Fresh processes of each kind; the median counts.
        results: Folder for the results file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = photo or Path(folder) / "gray.jpg"
        if photo is None:
            Image.new("RGB", (640, 480), "gray").save(path)

        command = [sys.executable, "-m", "maskfree", "segment", str(path), "--words", *WORDS]
        command += ["--model", model, "--out", f"{folder}/out", "--quiet"]
        steps = [sys.executable, "-c", PROGRAM, model, str(path), *WORDS]
        whole, inside = [], []
        for _ in range(repeats + 1):  # the first round fills the disk cache and does not count
            whole.append(cpu_seconds(lambda: run(command)))
            inside.append(json.loads(run(steps).splitlines()[-1]))

    medians = map(statistics.median, zip(*inside[1:], strict=True))
    seconds = {COMMAND: statistics.median(whole[1:]), **dict(zip(STEPS, medians, strict=True))}
    ratios = [
        Ratio("CPU seconds of a cold command", seconds[COMMAND], GOAL, unit="s"),
        Ratio("cold command over torch's import", seconds[COMMAND] / seconds["import torch"]),
    ]
    settings = {
        "model": model,
        "photo": photo.name if photo else "gray 640x480",
        "words": WORDS,
        "repeats": repeats,
        "clock": "CPU seconds",
    }
    report("cold-start", seconds, ratios, settings, results)


def run(arguments: list[str]) -> str:
    """Run a program and return what it prints; end with its last line where it fails."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    return done.stdout


def cpu_seconds(run_process: Callable[[], object]) -> float:
    """CPU seconds, of user and system, of the processes that a function starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_process()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    tyro.cli(main)

"""Cold start: a fresh Python imports maskfree, loads a model and labels a photo.

Torch's own import is apart.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro
from PIL import Image

from harness import RESULTS, Ratio, report

# torch is imported first and timed alone, so that the times after it are ours (transformers
# included).
PROGRAM = """
import json, sys, time
marks = [time.perf_counter()]
import torch; marks.append(time.perf_counter())
import maskfree; maskfree.load; marks.append(time.perf_counter())
model = maskfree.load(sys.argv[1]).with_words(["dog", "grass", "sky"])
marks.append(time.perf_counter())
model(sys.argv[2]); marks.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(marks, marks[1:])]))
"""
STEPS: tuple[str, ...] = ("import torch", "import maskfree", "load and words", "first label map")


def main(
    model: str = "pocket", photo: Path | None = None, repeats: int = 5, results: Path = RESULTS
) -> None:
    """Time the steps in fresh processes.

    Args:
        model: Name of a model or folder of a checkpoint.
        photo: Photo to label; without one, a gray one of 640x480.
        repeats: Fresh processes; the median of each step counts.
        results: Folder for the results file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = photo or Path(folder) / "gray.jpg"
        if photo is None:
            Image.new("RGB", (640, 480), "gray").save(path)
        arguments = [sys.executable, "-c", PROGRAM, model, str(path)]
        runs = []
        for _ in range(repeats + 1):  # the first one fills the disk cache and does not count
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr.strip().splitlines()[-1])
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = dict(zip(STEPS, map(statistics.median, zip(*runs[1:], strict=True)), strict=True))
    own = statistics.median(sum(run[1:]) for run in runs[1:])
    seconds["all but torch's import"] = own
    ratio = Ratio("seconds to the first label map", own, "at most 3", unit="s")
    settings = {
        "model": model,
        "photo": photo.name if photo else "gray 640x480",
        "repeats": repeats,
    }
    report("cold-start", seconds, [ratio], settings, results)


if __name__ == "__main__":
    tyro.cli(main)

"""Threads on a busy machine: waiting passively, as commands do, against spinning and one thread.

Other processes compute all the time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import tyro

from harness import RESULTS, Ratio, report

# A fresh process each, since the variables count when torch is loaded.
PROGRAM = """
import hashlib, json, statistics, sys, time
import maskfree
from maskfree.cli.common import wait_passively
if sys.argv[1] == "passive":
    wait_passively()
model = maskfree.load(sys.argv[2], "cpu").with_words(["sky", "tree", "building"])
model = model.with_inference(model.inference.changed(side_px=int(sys.argv[5])))
digest = hashlib.sha256(model(sys.argv[3]).labels.tobytes()).hexdigest()
seconds = []
for _ in range(int(sys.argv[4])):
    start = time.perf_counter()
    model(sys.argv[3])
    seconds.append(time.perf_counter() - start)
print(json.dumps([statistics.median(seconds), digest]))
"""
KINDS = {
    "passive": "all cores, waiting passively",
    "spinning": "all cores, spinning",
    "one": "one thread",
}
GOAL = "at most 1.1"
VARIABLES = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


def main(
    model: str = "pocket",
    photo: Path = Path("examples/pagoda.jpg"),
    busy: int = 2,
    spinning: bool = True,
    repeats: int = 1,
    rounds: int = 3,
    side_px: int = 128,
    results: Path = RESULTS,
) -> None:
    """Label a photo while other processes keep all cores busy.

    Args:
        model: Name of a model or folder of a checkpoint.
        photo: Photo to label.
        busy: Processes that compute all the time.
        spinning: Measure spinning threads too, which take minutes under a high load.
        repeats: Times that each process labels it; the median counts.
        rounds: Processes of each kind, in turn; the median counts.
        side_px: Shorter side of the resized photo; spinning on a large one takes minutes.
        results: Folder for the results file.
    """
    spinner = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spinner) for _ in range(busy)]
    try:
        time.sleep(1)
        kinds = [kind for kind in KINDS if spinning or kind != "spinning"]
        runs: dict[str, list[tuple[float, str]]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, taken in runs.items():
                taken.append(measured(kind, [model, str(photo), str(repeats), str(side_px)]))
    finally:
        for other in others:
            other.kill()

    digests = {digest for taken in runs.values() for _, digest in taken}
    if len(digests) != 1:
        sys.exit("the labels differ between numbers of threads")

    seconds = {}
    for kind, taken in runs.items():
        seconds[KINDS[kind]] = statistics.median(second for second, _ in taken)
    one = seconds[KINDS["one"]]
    ratios = [Ratio("all cores, passive, over one thread", seconds[KINDS["passive"]] / one, GOAL)]
    if spinning:
        ratios.append(
            Ratio("all cores, spinning, over one thread", seconds[KINDS["spinning"]] / one)
        )
    settings = {
        "model": model,
        "photo": photo.name,
        "side_px": side_px,
        "cores": os.cpu_count(),
        "busy_processes": busy,
        "load": os.getloadavg()[0],
        "labels": "equal",
        "repeats": repeats,
        "rounds": rounds,
    }
    report("threads", seconds, ratios, settings, results)


def measured(kind: str, arguments: list[str]) -> tuple[float, str]:
    """Seconds per photo in a fresh process, and a hash of the labels."""
    variables = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    if kind == "one":
        variables["OMP_NUM_THREADS"] = "1"

    command = [sys.executable, "-c", PROGRAM, kind, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    seconds, digest = json.loads(done.stdout)
    return seconds, digest


if __name__ == "__main__":
    tyro.cli(main)

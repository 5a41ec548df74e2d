"""Many words in a fresh process: encoded, and read from the user's cache, in CPU seconds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro

from harness import RESULTS, Ratio, report
from maskfree.data.benchmarks.catalog import BENCHMARKS

PROGRAM = """
import hashlib, json, sys, time
import maskfree
model = maskfree.load(sys.argv[1], "cpu")
words = json.load(sys.stdin)
start = time.process_time()
model = model.with_words(words)
seconds = time.process_time() - start
print(json.dumps([seconds, hashlib.sha256(model.embeddings.numpy().tobytes()).hexdigest()]))
"""
ENCODED, READ = "words encoded", "words read from the cache"


def main(
    model: str = "pocket", num_words: int = 150, repeats: int = 3, results: Path = RESULTS
) -> None:
    """Choose words in fresh processes, with and without the cache in turn.

    Args:
        model: Name of a model or folder of a checkpoint.
        num_words: Words, of the benchmarks' classes.
        repeats: Processes of each kind; the median counts.
        results: Folder for the results file.
    """
    words = class_names(num_words)
    encoded, read = [], []
    with tempfile.TemporaryDirectory() as folder:
        digests = {chosen(model, words, folder)[1]}
        for _ in range(repeats):
            for place, taken in (("off", encoded), (folder, read)):
                seconds, digest = chosen(model, words, place)
                taken.append(seconds)
                digests.add(digest)

    if len(digests) != 1:
        sys.exit("the embeddings of the cache differ")
    seconds = {ENCODED: statistics.median(encoded), READ: statistics.median(read)}
    ratios = [
        Ratio(f"CPU seconds of {num_words} words, second run", seconds[READ], "at most 0.1", "s"),
        Ratio("encoded over read", seconds[ENCODED] / seconds[READ]),
    ]
    settings = {
        "model": model,
        "words": num_words,
        "embeddings": "bit-equal",
        "clock": "CPU seconds",
        "repeats": repeats,
    }
    report("words", seconds, ratios, settings, results)


def class_names(number: int) -> list[str]:
    """Different first names of the benchmarks' classes."""
    names: dict[str, None] = {}
    for each in BENCHMARKS.values():
        # The classes of a folder of the user are not known.
        if each.name == "folder":
            continue
        names |= dict.fromkeys(str(word).split("/")[0] for word in each.words())
    return list(names)[:number]


def chosen(model: str, words: list[str], cache: str) -> tuple[float, str]:
    """CPU seconds and a hash of the embeddings, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, model],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MASKFREE_CACHE": cache},
    )
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    seconds, digest = json.loads(done.stdout)
    return seconds, digest


if __name__ == "__main__":
    tyro.cli(main)

"""Run in a process of its own: the command line on every hostile file, one JSON line for each case.

After the folder to work in may come parts of the names of the cases that are wanted.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import resource
import sys
import time
from pathlib import Path

import hostile_cases
import hostile_files
from maskfree.cli import main
from maskfree.hub import loading
from peak_memory import peak_bytes

MAX_ADDRESSES = (
    12 * 2**30
)  # so that a fault does not take the machine down; what is asserted is the memory in use


def run(arguments: list[str]) -> tuple[int, str]:
    """The exit status and standard error of a command.

    A traceback is what the interpreter would print.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0), errors.getvalue()
    except BaseException as error:
        return 1, f"{errors.getvalue()}Traceback: {type(error).__name__}: {str(error)[:300]}"
    return 0, errors.getvalue()


if __name__ == "__main__":
    root = Path(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESSES, MAX_ADDRESSES))
    marker = root / "marker"
    hostile = hostile_files.make(root / "hostile", marker)
    work = root / "work"
    work.mkdir()
    os.chdir(work)
    results = (root / "results.jsonl").open("w", buffering=1)
    loading.load = functools.cache(
        loading.load
    )  # the good model is read once; what fails is not kept
    for case in hostile_cases.cases(hostile, work):
        if len(sys.argv) > 2 and not any(part in case.name for part in sys.argv[2:]):
            continue
        started = time.monotonic()
        status, error = run(case.arguments)
        used = peak_bytes() // 2**20
        record = {
            "case": case.name,
            "status": status,
            "error": error,
            "megabytes": used,
            "marker": marker.exists(),
        }
        results.write(json.dumps(record | {"seconds": round(time.monotonic() - started, 2)}) + "\n")
        marker.unlink(missing_ok=True)

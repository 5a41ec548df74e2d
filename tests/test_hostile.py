"""Hostile files for every option of every command that takes one, in one process that imports torch
once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hostile_cases

MOST_MEGABYTES = 2000
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each case ended with."""
    root = tmp_path_factory.mktemp("hostile")
    paths = [str(HERE), str(HERE.parent / "src")]
    program = (
        f"import runpy, sys; sys.path[:0] = {paths}; "
        "runpy.run_module('hostile_run', run_name='__main__')"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(root)], check=True, capture_output=True, timeout=600
    )
    assert {path.name for path in root.iterdir()} <= {"hostile", "work", "results.jsonl"}, (
        "something lies outside"
    )
    assert {path.name for path in (root / "work").iterdir()} <= {
        "photos",
        "words",
        "bench",
        "out",
    }, "something lies outside"
    return [json.loads(line) for line in (root / "results.jsonl").read_text().splitlines()]


def test_none_runs(results: list[dict[str, Any]]):
    assert len(results) > 500
    assert [result["case"] for result in results if result["marker"]] == []


def test_each_is_refused_in_one_line(results: list[dict[str, Any]]):
    """What was skipped may be said before it."""
    wrong = {}
    for result in results:
        lines = result["error"].strip().splitlines()
        own = [line for line in lines if line.startswith("maskfree: error: ")]
        if (
            result["status"] != 2
            or len(own) != 1
            or lines[-1] != own[0]
            or "Traceback" in result["error"]
        ):
            wrong[result["case"]] = (result["status"], result["error"][-300:])
    assert wrong == {}


def test_the_files_are_reached(results: list[dict[str, Any]]):
    """Each option's cases end at the file, not at something before it."""
    reached: dict[str, bool] = {}
    for result in results:
        option = result["case"].partition(":")[0]
        reached[option] = reached.get(option, False) or "hostile/" in result["error"]
    late = {option for option in reached if option.endswith(hostile_cases.LATE)}
    assert {option for option, found in reached.items() if not found} <= late


def test_none_hears_how_to_run_what_is_in_a_file(results: list[dict[str, Any]]):
    assert [result["case"] for result in results if "weights_only" in result["error"]] == []


def test_none_fills_the_memory(results: list[dict[str, Any]]):
    assert max(result["megabytes"] for result in results) < MOST_MEGABYTES


def test_every_option_that_takes_a_file_has_cases():
    """A new option of text or path is given hostile files, or is said to take none."""
    missing = [
        f"{command} {option}"
        for command, options in hostile_cases.text_options().items()
        for option in sorted(options)
        if f"{command} {option}" not in hostile_cases.OPTIONS
        and option.rpartition(".")[2] not in hostile_cases.NO_FILES | hostile_cases.WRITTEN
    ]
    assert missing == []

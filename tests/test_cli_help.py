"""Every command's --help: it comes within a second, without the network's libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from maskfree.cli import COMMANDS
from maskfree.cli.prepare import WHAT
from maskfree.recipes import RECIPES

MOST_CPU_SECONDS = 1.0
HELPS = [
    [],
    *([name] for name in COMMANDS),
    *(["prepare", what] for what in WHAT),
    *(["train", name] for name in RECIPES),
]
ALL_HELPS = """
import contextlib, io, json, sys
from maskfree.cli import main

for arguments in json.loads(sys.argv[1]):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            main([*arguments, "--help"])
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
    assert "usage: maskfree" in printed.getvalue(), arguments
    heavy = {"torch", "transformers", "scipy", "matplotlib", "lightning_fabric", "skimage"} & set(sys.modules)
    assert not heavy, f"maskfree {' '.join(arguments)} --help imports {heavy}"
"""


def test_no_help_imports_torch():
    ran = subprocess.run(
        [sys.executable, "-c", ALL_HELPS, json.dumps(HELPS)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def cpu_seconds(*arguments: str) -> float:
    """Run the command, and return the processor's time that it took."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "maskfree", *arguments], check=True, capture_output=True)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def test_the_longest_help_takes_less_than_a_second():
    cpu_seconds("train", "vilseg", "--help")  # compiles what is not yet
    assert min(cpu_seconds("train", "vilseg", "--help") for _ in range(3)) < MOST_CPU_SECONDS

"""A method from outside: one package, one import line and one recipe, and everything works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "src" / "maskfree"
# Runs the commands one after the other in one process, since importing torch takes seconds.
COMMANDS = """
import sys
from maskfree.cli import main
for command in sys.argv[1:]:
    try:
        main(command.split())
    except SystemExit as done:
        assert not done.code, (command, done.code)
"""
STUDENT = "--crop-px 32 --workers 0 --quiet"
TRAIN = "--{0}steps 1 --{0}batch-size 2 --{0}accelerator cpu --{0}precision 32-true"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Folder of a copy of the package with the method CLIPpy."""
    package = tmp_path / "src" / "maskfree"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("pocket", "__pycache__"))
    (package / "pocket").symlink_to(PACKAGE / "pocket")

    method = package / "methods" / "clippy"
    method.mkdir()
    (method / "__init__.py").write_text('"""CLIPpy (ICCV 2023)."""\n')
    for name in ("config", "model", "batch", "transform"):
        shutil.copy(TESTS / "fourth_method" / f"{name}.py", method)
    shutil.copy(TESTS / "fourth_method" / "recipe.py", package / "recipes" / "clippy.py")
    add_line(package / "methods", "from maskfree.methods.clippy.config import CLIPpyConfig")
    add_line(package / "recipes", "from maskfree.recipes.clippy import clippy_debug")
    return tmp_path / "src"


def add_line(package: Path, line: str) -> None:
    """Import NAME as NAME in a package, after its other imports of one line."""
    init = package / "__init__.py"
    before, last, after = init.read_text().rpartition(f"\nfrom maskfree.{package.name}.")
    rest = after.partition("\n")
    name = line.split()[-1]
    init.write_text(f"{before}{last}{rest[0]}\n{line} as {name}\n{rest[2]}")


def python(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the copied package."""
    env = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=source.parent,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
    )


def contract(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the contract tests of CLIPpy, which read the copied package."""
    settings = ["-c", str(TESTS.parent / "pyproject.toml"), "-p", "no:cacheprovider"]
    paths = ["-o", f"pythonpath={source}"]
    return python(
        source,
        *("-m", "pytest", "-q", *settings, *paths),
        *(str(TESTS / "test_contract.py"), "-k", "clippy", *arguments),
    )


def test_it_trains_segments_and_teaches(
    source: Path, tmp_path: Path, photo: Callable[..., Image.Image]
):
    (tmp_path / "photos").mkdir()
    for number, size in enumerate([(70, 50), (48, 64), (64, 40)]):
        photo(size).save(tmp_path / "photos" / f"{number}.png")

    teacher = "--words red blue --model trained/model"
    done = python(
        source,
        *("-c", COMMANDS),
        "train clippy_debug --out trained",
        f"segment photos/0.png {teacher} --out labels",
        f"distill clips4 photos {teacher} --out clips4 --top 1 --num-unknown 2 "
        f"{STUDENT} {TRAIN.format('train.')}",
        f"distill pseudo-labels photos {teacher} --out labeled {STUDENT} {TRAIN.format('')}",
    )
    assert not done.returncode, done.stderr[-3000:]
    with Image.open(tmp_path / "labels" / "0.png") as labels:
        assert labels.size == (70, 50)
    for run in ("trained", "clips4", "labeled"):
        assert (tmp_path / run / "model" / "weights.safetensors").is_file()


def test_the_contract_tests_find_it(source: Path):
    done = contract(source)
    assert not done.returncode, done.stdout[-3000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("recipes/__init__.py", "clippy_debug", "toy", "CLIPpyConfig has no example: add a recipe"),
        ("methods/clippy/model.py", "def group(", "def groups(", r"abstract method '?group"),
        ("methods/clippy/config.py", "def student_parts(", "def parts(", "lacks student_parts"),
        ("methods/clippy/config.py", "def for_inference(", "def lean(", "lacks for_inference"),
    ],
)
def test_what_is_missing_is_said_in_a_test(
    source: Path, file: str, old: str, new: str, message: str
):
    changed = source / "maskfree" / file
    text = changed.read_text()
    if old == "clippy_debug":
        lines = [line for line in text.splitlines() if old not in line]
        changed.write_text("\n".join(lines))
    else:
        assert old in text
        changed.write_text(text.replace(old, new))
    done = contract(source, "-k", "clippy and complete or CLIPpy and complete")
    assert "1 failed" in done.stdout and re.search(message, done.stdout), done.stdout[-3000:]

"""README's commands and example do what README says.

That they also install is `.ci/run`'s to check.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def command(name: str) -> str:
    found = re.search(
        rf"<!-- command:{name} -->\n```bash\n(.+)\n```\n<!-- /command:{name} -->", README
    )
    assert found, f"README has no one-line command {name!r} between its markers"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_written(folder: Path, stem: str) -> None:
    assert {p.name for p in folder.iterdir()} == {
        f"{stem}.png",
        f"{stem}.overlay.png",
        f"{stem}.json",
    }


def test_first_command_installs_and_segments(folder: Path):
    install, segment = command("segment").split(" && ")
    assert install == "pip install ."
    program, *arguments = shlex.split(segment)
    run([str(Path(sys.executable).parent / program), *arguments], folder)
    assert_written(folder / "out", "pagoda")


def test_second_command_names_an_extra_and_the_test_runner():
    install, test = command("test").split(" && ")
    extra = re.fullmatch(r'pip install -e "\.\[(\w+)\]"', install)
    assert extra
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any(r.startswith("pytest") for r in project["optional-dependencies"][extra[1]])
    assert test.split()[0] == "pytest"


def test_python_example_runs_and_has_six_lines(folder: Path):
    (example,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert len(example.strip().splitlines()) <= 6
    printed = run([sys.executable, "-c", example], folder)
    assert "building" in printed and "sky" in printed
    assert_written(folder / "out", "pagoda")


def test_python_example_lies_in_examples_too():
    (example,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    script = (ROOT / "examples" / "segment_photo.py").read_text(encoding="utf-8")
    assert script.split('"""\n\n', 1)[1] == example

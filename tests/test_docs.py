"""The pages say what is so: tables come from the results, links lead somewhere, code blocks and
options exist.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import tomllib
import typing
from functools import cache
from pathlib import Path

import pytest

from maskfree import methods
from maskfree.cli.evaluate import KINDS as EVALUATE_KINDS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")]
)
NESTED = (
    "train",
    "prepare",
    "distill",
)  # whose options depend on the first argument
page = pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def tables(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "studies.tables", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@cache
def help_of(words: tuple[str, ...]) -> str:
    code = "from maskfree.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--help-all"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tables_are_what_the_results_say():
    done = tables("--check")
    assert done.returncode == 0, done.stdout + done.stderr


@page
def test_links_lead_somewhere(path: Path):
    text = re.sub(r"```.*?```|`[^`\n]+`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    for target in targets:
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings
            }, target


@page
def test_python_blocks_compile(path: Path):
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        ast.parse(block)


@page
def test_commands_have_the_options_that_pages_use(path: Path):
    blocks = re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    for line in lines:
        if not (called := re.search(r"(?:^|&& )maskfree ([a-z].*)$", line)):
            continue
        subcommand, *rest = called[1].split()
        has_kind = subcommand in NESTED or EVALUATE_KINDS.keys() & rest[:1]
        first = rest[:1] if has_kind else []
        for option in re.findall(r"--[a-z][a-z.-]*", called[1]):
            assert option in help_of((subcommand, *first)), f"{line}: {subcommand} has no {option}"


def settings_of(config: type, prefix: str = "") -> set[str]:
    """Return the names of all settings of a configuration and of those inside it, with dots."""
    names, hints = set(), typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        names.add(prefix + field.name)
        for kind in typing.get_args(hints[field.name]) or (hints[field.name],):
            if dataclasses.is_dataclass(kind):
                names |= settings_of(kind, f"{prefix}{field.name}.")  # pyright: ignore
    return names


@pytest.mark.parametrize("method", ["vilseg", "ovsegmentor", "clips4", "maskclip"])
def test_settings_that_the_page_of_a_method_names_exist(method: str):
    config = next(
        kind for name, kind in vars(methods).items() if name.casefold() == f"{method}config"
    )
    text = (ROOT / "docs" / "methods" / f"{method}.md").read_text(encoding="utf-8")

    named = {name.removeprefix("method.") for name in re.findall(r"`([a-z_]+\.[a-z_.]+)`", text)}
    # A dot also stands in the names of files.
    named = {name for name in named if not (ROOT / "src" / "maskfree" / name).exists()}
    assert named <= settings_of(config)


def test_architecture_draws_the_layers_as_they_are_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

    block = re.search(r"```text\n(cli .*?)```", text, re.DOTALL)
    assert block
    drawn = [re.split(r"\s{2,}", line)[0] for line in block[1].splitlines()]
    assert [name.replace("/<name>", "") for name in drawn] == [
        layer for layer in layers if layer != "__main__"
    ]


def test_tests_that_the_reliability_page_names_exist():
    rows = re.findall(
        r"^\| .+ \| (.+) \|$",
        (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    named = [name for row in rows for name in re.findall(r"`(tests/\S+?::\w+)`", row)]
    assert all(
        re.search(r"`tests/\S+?::\w+`", row) for row in rows if row not in ("test", "---")
    ), "a row without a test"
    for name in named:
        file, _, function = name.partition("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^\s*def {function}\(", source, re.MULTILINE), f"{name} does not exist"

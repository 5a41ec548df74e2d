"""Every `maskfree` command in README and docs is one: its names, options and values are
understood.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import tyro

from maskfree import cli
from maskfree.cli.evaluate import KINDS as EVALUATE_KINDS
from maskfree.data.benchmarks.catalog import BENCHMARKS
from maskfree.hub.catalog import METHODS, MODELS
from maskfree.hub.model_name import parse_model_name
from shared_folder import SHARED

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
)
NAMES = {*cli.COMMANDS, "--version", "-V"}
WITH_A_NAME = {"prepare", "train", "convert", "distill"}


def commands_in(text: str) -> Iterator[tuple[str, ...]]:
    """Return the words of each command in a page: those of its shell blocks, and those between
    back-quotes.
    """
    blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.S | re.M)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    between = re.findall(
        r"(?<!`)`(maskfree [^`]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    )
    for line in (*lines, *between):
        for part in filter(re.compile(r"(^|\s)maskfree\s").search, re.split(r"&&|;|\|", line)):
            words = shlex.split(part.strip().removeprefix("$ "), comments=True)
            if "maskfree" in words[:8]:
                yield tuple(words[words.index("maskfree") + 1 :])


COMMANDS = sorted(
    {
        (words, page.relative_to(ROOT))
        for page in PAGES
        for words in commands_in(page.read_text("utf-8"))
    }
)


class Understood(Exception):  # noqa: N818 - no error
    """A command was parsed, and would begin its work."""

    def __init__(self, values: dict[str, Any]):
        self.values = values


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`parse(*words)` parses a command without its work, and returns the values that the command
    would get.
    """

    def stopped(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def stop(**values: Any) -> None:
            raise Understood(values)

        return stop

    def parse_only(target: Callable[..., Any], **settings: Any) -> Any:
        # The settings of a recipe are a class; functions are commands, or kinds of one.
        if isinstance(target, FunctionType):
            target = stopped(target)
        values = whole(target, **settings)
        raise Understood({"run": values})

    whole = tyro.cli
    monkeypatch.setattr(tyro, "cli", parse_only)
    for name, command in cli.COMMANDS.items():
        monkeypatch.setitem(cli.COMMANDS, name, stopped(command))

    def parse(*words: str) -> dict[str, Any]:
        try:
            cli.main(words)
        except Understood as understood:
            return understood.values
        except SystemExit as end:
            assert not end.code, f"maskfree {shlex.join(words)}"
        return {}

    return parse


def is_a_mention(words: tuple[str, ...]) -> bool:
    """Say whether WORDS only name a command, as in "see `maskfree prepare entities`"."""
    if len(words) == 2:
        return words[0] in WITH_A_NAME or words[1] in EVALUATE_KINDS
    return len(words) == 1


def test_commands_are_found():
    assert len(COMMANDS) > 100
    assert {words[0] for words, _ in COMMANDS if words} >= set(cli.COMMANDS)


@pytest.mark.parametrize(
    ("words", "page"), COMMANDS, ids=[f"{page}: {shlex.join(words)}" for words, page in COMMANDS]
)
def test_every_command_is_understood(
    words: tuple[str, ...],
    page: Path,
    parse: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
):
    assert words[0] in NAMES
    if is_a_mention(words):
        words = (*words, "--help")
    if words[:2] == ("train", "RECIPE"):
        words = ("train", "vilseg", *words[2:])
    values = parse(*words)

    names = values.get("benchmarks", (values.get("benchmark"),))
    assert {name.removesuffix("-train") for name in names if name} <= {*BENCHMARKS, "folder"}
    if "model" in values:
        model = str(values["model"])
        assert model in MODELS or "/" in model or model.isupper()
        parse_model_name(model, METHODS)
    for model in values.get("names", ()) if words[0] == "download" else ():
        assert model in MODELS or parse_model_name(model, METHODS).method or model.isupper()


@pytest.mark.parametrize(
    "words",
    [
        ("segment", "photo.jpg", "--word", "dog"),
        ("evaluate", "coco-mini"),
        ("train", "vilsegg", "--out", "runs"),
        ("train", "vilseg", "--train.step", "3"),
        ("prepare", "entitys"),
        ("distill", "photos"),
        ("distill", "clips4", "photos"),
        ("distill", "pseudo-labels", "photos", "--keeps", "1"),
        ("evaluate", "knn", "camvid"),
    ],
)
def test_a_wrong_command_is_not(words: tuple[str, ...], parse: Callable[..., dict[str, Any]]):
    with pytest.raises(AssertionError, match="maskfree"):
        parse(*words)


def runs_here(words: tuple[str, ...]) -> bool:
    """Say whether a command needs nothing but the repository and the shared data, and ends within
    minutes.

    The commands of the page of results made its rows; they are not made again here.
    """
    if "--model" in words and words[words.index("--model") + 1] not in ("pocket",):
        return False
    quick = words[0] in ("segment", "evaluate", "datasets", "compare")
    # Whole films, and sweeps over all photos of BSDS500.
    quick = quick and not {"tracking", "regions"} & {*words[1:2]}
    files = [word for word in words if "/" in word and not word.startswith(("runs/", "results/"))]
    return quick and bool(files) and all((ROOT / word).exists() for word in files)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(
    "words",
    sorted({words for words, page in COMMANDS if runs_here(words) and page.name != "results.md"}),
    ids=lambda words: shlex.join(words),
)
def test_commands_that_need_the_shared_data_run(words: tuple[str, ...], tmp_path: Path):
    if not SHARED.is_dir():
        pytest.skip(f"the development data {SHARED} are absent")
    # Outputs go to a folder of their own; what is read lies where the page says.
    (tmp_path / "here").mkdir()
    (tmp_path / "shared").symlink_to(SHARED)
    for name in ("examples", "results"):
        (tmp_path / "here" / name).symlink_to(ROOT / name)
    out = ("--results", "rows") if words[0] == "evaluate" else ()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "WORLD_SIZE": "1"}
    command = " ".join(map(shlex.quote, (sys.executable, "-m", "maskfree", *words, *out)))
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path / "here",
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert ran.returncode == 0, ran.stderr

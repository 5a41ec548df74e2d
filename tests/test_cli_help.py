"""Every command's --help: quick, and short where a command has many settings.

Wrong usage in one line.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_type_hints

import pytest
import tyro

from maskfree.cli import COMMANDS, main
from maskfree.cli.distill import KINDS
from maskfree.cli.distill import KINDS as DISTILL_KINDS
from maskfree.cli.evaluate import KINDS as EVALUATE_KINDS
from maskfree.cli.parsing import parse_call, parse_settings
from maskfree.cli.prepare import KINDS as PREPARE_KINDS
from maskfree.cli.train import COMMON
from maskfree.config.rules import Count, check
from maskfree.distillation.clips4_config import DistillConfig
from maskfree.distillation.self_training_config import SelfTrainConfig
from maskfree.recipes import RECIPES

MOST_CPU_SECONDS = 1.0
HELPS = [
    [],
    *([name] for name in COMMANDS),
    *(["prepare", kind] for kind in PREPARE_KINDS),
    *(["distill", kind] for kind in DISTILL_KINDS),
    *(["evaluate", kind] for kind in EVALUATE_KINDS),
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
    libraries = {"torch", "transformers", "scipy", "matplotlib", "lightning_fabric", "skimage"}
    heavy = libraries & set(sys.modules)
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


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command, and return its status, stdout and stderr."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    streams = capsys.readouterr()
    return int(end.value.code or 0), streams.out, streams.err


def listed(shown: str) -> dict[str, str]:
    """Options that a help lists, each with its text."""
    lines = [line.strip("│ ") for line in shown.splitlines() if line.startswith(("│", " "))]
    found: dict[str, str] = {}
    option = ""
    for line in lines:
        if match := re.match(r"(?:-h, )?(--[a-z][a-z.-]*)", line):
            option = match[1]
        found[option] = f"{found.get(option, '')} {line}"
    found.pop("", None)
    return found


def options_of(settings: Any, prefix: str = "") -> Iterator[str]:
    """Option of every field of nested settings, as tyro spells it."""
    kinds = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        name = f"{prefix}{field.name.replace('_', '-')}"
        absent_part = value is None and any(
            map(dataclasses.is_dataclass, get_args(kinds[field.name]))
        )

        if dataclasses.is_dataclass(value):
            yield from options_of(value, f"{name}.")
        elif isinstance(value, dict):
            yield from (f"--{name}.{key.replace('_', '-')}" for key in value)
        elif not absent_part:
            yield f"--{name}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_of_a_recipe_lists_about_twenty_options(
    recipe: str, capsys: pytest.CaptureFixture[str]
):
    status, shown, _ = run(capsys, "train", recipe, "--help")
    options = listed(shown)

    assert status == 0 and "--help-all shows every setting" in shown
    assert 15 <= len(set(options) - {"--help"}) <= 22
    assert {"--out", "--resume", "--init", "--data.shards", "--train.steps"} <= set(options)

    # Beyond the name and the default, a text says what the option does.
    for option, text in options.items():
        assert re.search(r"\b[a-z]+ (\S+ )?[a-z]+\b", text.split("(default")[0]), option


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_all_of_a_recipe_lists_every_setting(recipe: str, capsys: pytest.CaptureFixture[str]):
    status, shown, _ = run(capsys, "train", recipe, "--help-all")
    missing = {*options_of(RECIPES[recipe]()), "--out", "--resume", "--leave-out"} - set(
        listed(shown)
    )
    assert (status, missing) == (0, set())


@pytest.mark.parametrize("kind", KINDS)
def test_help_of_a_distillation_lists_about_twenty_options(
    kind: str, capsys: pytest.CaptureFixture[str]
):
    status, shown, _ = run(capsys, "distill", kind, "--help")
    options = set(listed(shown)) - {"--help"}
    assert status == 0 and "--help-all shows every setting" in shown
    assert len(options) == len(KINDS[kind].common) <= 22
    assert {"--words", "--model", "--out", "--side-px", "--weights"} <= options


@pytest.mark.parametrize(
    ("kind", "settings", "prefix"),
    [("clips4", DistillConfig(), ""), ("pseudo-labels", SelfTrainConfig(), "train.")],
)
def test_help_all_of_a_distillation_lists_every_setting(
    kind: str, settings: Any, prefix: str, capsys: pytest.CaptureFixture[str]
):
    status, shown, _ = run(capsys, "distill", kind, "--help-all")
    # Settings of the student have no prefix, and those of pseudo-labels none at all.
    options = {option.replace("--student.", "--") for option in options_of(settings)}
    options = {option.replace(f"--{prefix}", "--") for option in options}
    assert (status, options - set(listed(shown))) == (0, set())


def test_every_common_setting_is_one_of_some_recipe():
    options = {
        option.removeprefix("--").replace("-", "_")
        for recipe in RECIPES.values()
        for option in options_of(recipe())
    }
    assert {name.removeprefix("recipe.") for name in COMMON} - options == {"out", "resume"}


@dataclasses.dataclass(frozen=True)
class Inner:
    """Settings of a part."""

    size: Count = 3
    """Size of the part."""
    color: str = "red"
    """Color of the part."""

    def __post_init__(self) -> None:
        check(self)


@dataclasses.dataclass(frozen=True)
class Outer:
    """Settings of a whole."""

    part: Inner
    """A part."""
    other: Annotated[Inner | None, tyro.conf.AvoidSubcommands] = None
    """Another part."""
    names: tuple[str, ...] = ("a",)
    """Names of the whole."""


OUTER = Outer(Inner(color="blue"), Inner(size=9))


def help_of_outer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    with pytest.raises(SystemExit) as end:
        parse_settings(Outer, "outer", arguments, OUTER, ("part.color", "other.size"))
    assert end.value.code == 0
    return listed(capsys.readouterr().out)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_only_common_fields_are_listed(flag: str, capsys: pytest.CaptureFixture[str]):
    options = help_of_outer(capsys, flag)
    assert set(options) == {"--help", "--part.color", "--other.size"}
    assert "Color of the part. (default: blue)" in options["--part.color"]
    assert "Size of the part. (default: 9)" in options["--other.size"]


def test_help_all_lists_all_fields(capsys: pytest.CaptureFixture[str]):
    assert set(help_of_outer(capsys, "--help-all")) == {
        *("--help", "--part.size", "--part.color", "--other.size", "--other.color", "--names")
    }


def test_what_help_hides_is_parsed():
    arguments = ("--part.size", "5", "--names", "b", "c", "--other.color", "green")
    assert parse_settings(Outer, "outer", arguments, OUTER, ("part.color",)) == Outer(
        Inner(5, "blue"), Inner(9, "green"), ("b", "c")
    )


def join(first: str, second: int = 2, settings: Inner = OUTER.part) -> str:
    """Join things.

    Args:
        first: The first thing.
        second: The second thing.
        settings: Settings of a part.

    Returns:
        All things.
    """
    return f"{first} {second} {settings.size} {settings.color}"


def test_parameters_are_hidden_as_fields_are(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse_call(join, "join", ["--help"], ("settings.size",))
    shown = capsys.readouterr().out
    options = listed(shown)
    assert set(options) == {"--help", "--first", "--settings.size"}
    assert "The first thing. (required)" in options["--first"]
    assert "Join things. --help-all shows every setting." in shown

    arguments = ["--second", "3", "--first", "a", "--settings.color", "red"]
    assert parse_call(join, "join", arguments, ("settings.size",))() == "a 3 3 red"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--first", "a", "--thirds", "1"],
            "unrecognized options: --thirds, 1; see join --help",
        ),
        (
            ["--first", "a", "--secnd", "1"],
            "unrecognized options: --secnd, 1; perhaps you meant: --second INT; see join --help",
        ),
        ([], "missing from join: --first STR; see join --help"),
        (["--first", "a", "--second", "x"], "--second: invalid literal for int() "),
        (["--first", "a", "--second"], "missing value for argument '--second'"),
        (["--first", "a", "--settings.size", "0"], "size is 0, must be at least 1"),
        (["--first", "a", "--a" + "b" * 500], f"--a{'b' * 500}; see"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_wrong_usage_is_one_line(
    arguments: list[str], message: str, encoding: str, monkeypatch: pytest.MonkeyPatch
):
    # Where the terminal has no characters for frames, tyro draws them of others.
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(ValueError) as refused:
        parse_call(join, "join", arguments)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert os.environ["COLUMNS"] == "60"


def test_errors_of_the_call_stay_as_they_are():
    def fail(size: int) -> None:
        """Fail."""
        raise ValueError(f"{size}\nlines")

    call = parse_call(fail, "fail", ["--size", "2"])
    with pytest.raises(ValueError, match=r"^2\nlines$"):
        call()


@pytest.mark.parametrize(
    "words",
    [
        "segmen photo.jpg",
        "segment photo.jpg --refine sharp --words dog",
        "segment photo.jpg --wordz dog",
        "track",
        "train vilseg --train.stepz 3",
        "train vilseg --train.steps three",
        "train vilseg --train.steps 0",
        "train vilseg --train.precision half",
        "prepare entities shards",
        "search bus photos --top 0",
        "track photos --words bus --radius -1",
        "track photos --words bus --side-px 5000",
        "evaluate tracking davis --temperature 0",
        "evaluate regions bsds500 --threshold 2",
        "prepare segments photos --out maps --most 300",
    ],
)
def test_wrong_commands_end_in_one_line(words: str, capsys: pytest.CaptureFixture[str]):
    status, out, error = run(capsys, *words.split())
    assert (status, out) == (2, "")
    assert error.startswith("maskfree: error: ") and error.count("\n") == 1
    assert not set("│─|╭") & set(error) and "--- " not in error


def test_the_help_of_the_command_is_named(capsys: pytest.CaptureFixture[str]):
    _, _, error = run(capsys, "search", "bus", "photos", "--top", "0")
    assert error == ("maskfree: error: top is 0, must be at least 1; see maskfree search --help\n")

"""Commands and their kinds: the list, its order, what --help says of them, and wrong names in one
line.
"""

from __future__ import annotations

import pytest

from maskfree.cli import COMMANDS, main
from maskfree.cli.distill import KINDS as DISTILL_KINDS
from maskfree.cli.evaluate import KINDS as EVALUATE_KINDS
from maskfree.cli.kinds import Kind
from maskfree.cli.prepare import KINDS as PREPARE_KINDS
from maskfree.data.benchmarks.catalog import BENCHMARKS


def test_the_commands_are_listed_in_their_order(capsys: pytest.CaptureFixture[str]):
    names = "segment label track search serve train distill evaluate prepare compare models"
    assert list(COMMANDS) == [*names.split(), "download", "datasets", "convert", "export"]
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert not raised.value.code
    assert f"{{{','.join(COMMANDS)}}}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "kinds"),
    [("prepare", PREPARE_KINDS), ("distill", DISTILL_KINDS), ("evaluate", EVALUATE_KINDS)],
)
def test_help_lists_the_kinds_of_a_command(
    command: str, kinds: dict[str, Kind], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert not raised.value.code
    lines = capsys.readouterr().out.splitlines()
    for name, kind in kinds.items():
        assert [line.split(maxsplit=1) for line in lines if line.startswith(f"  {name} ")] == [
            [name, kind.summary]
        ]


def test_help_of_evaluate_lists_the_benchmarks_too(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert f"Benchmarks: {', '.join(BENCHMARKS)}." in capsys.readouterr().out


def test_no_benchmark_has_the_name_of_another_evaluation():
    assert not set(EVALUATE_KINDS) & set(BENCHMARKS)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["retrieve", "dog"], f"there is no command 'retrieve': choose from {', '.join(COMMANDS)}"),
        (["evaluate-tracking", "--help"], "there is no command 'evaluate-tracking': choose from "),
        (["distill"], "say what to distill: clips4, pseudo-labels"),
        (["distill", "photos"], "cannot distill 'photos': choose from clips4, pseudo-labels"),
        (["prepare"], "say what to prepare: entities, segments, teacher, prototypes"),
        (["prepare", "it"], "cannot prepare 'it': choose from entities, segments, teacher, proto"),
        (["evaluate"], "say what to evaluate: voc20, "),
        (["evaluate", "voc20", "knn", "--data", "."], "unknown benchmark 'knn': choose from voc20"),
        (["train"], "give a recipe: "),
    ],
)
def test_a_wrong_command_or_kind_is_named_in_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"maskfree: error: {line}")
    assert error.count("\n") == 1

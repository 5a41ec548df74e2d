"""`maskfree evaluate knn` and `evaluate linear`: what is printed and written, and one line for what
is wrong.
"""

import shlex

import numpy as np
import pytest
from PIL import Image

from maskfree.cli import main
from maskfree.evaluation.reporting.results import read_row


def run(*arguments):
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in arguments])
    return raised.value.code


@pytest.fixture
def camvid(tmp_path, photo):
    """Two photos that teach and one that is labeled; the sky is above the road."""
    for part, count in (("train", 2), ("val", 1)):
        for folder in ("images", "labels"):
            (tmp_path / "data/camvid" / part / folder).mkdir(parents=True)
        for number in range(count):
            labels = np.full((48, 64), 3, np.uint8)
            labels[:20] = 0
            photo((64, 48)).save(tmp_path / "data/camvid" / part / f"images/{number}.png")
            Image.fromarray(labels).save(tmp_path / "data/camvid" / part / f"labels/{number}.png")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("by", "options"),
    [
        ("knn", ("--neighbors", "3", "--segments", "4")),
        ("linear", ("--epochs", "2", "--photos-per-step", "1")),
    ],
)
def test_a_probe_prints_scores_and_its_command_makes_the_same_row(
    camvid, tiny_checkpoint, tmp_path, capsys, monkeypatch, by, options
):
    monkeypatch.chdir(tmp_path)
    common = ("--data", "data", "--model", tiny_checkpoint.name, "--side-px", "64")
    assert run("evaluate", by, "camvid", *common, *options) == 0
    (path,) = (tmp_path / "results").iterdir()
    row = read_row(path)
    assert (row.benchmark, row.protocol_name, row.num_photos, row.model) == (
        "camvid",
        by,
        1,
        "tiny",
    )
    assert row.mean_iou is not None
    assert row.iou["road"] is not None
    printed = capsys.readouterr().out
    for text in ("mIoU", "sky", "taught by masks of camvid-train"):
        assert text in printed
    assert run(*shlex.split(row.command)[1:], "--results", "again") == 0
    (again,) = (tmp_path / "again").iterdir()
    repeated = read_row(again)
    assert again.name == path.name
    assert (repeated.iou, repeated.protocol, repeated.command) == (
        row.iou,
        row.protocol,
        row.command,
    )


def test_rows_of_probes_are_compared_but_not_with_other_protocols(
    camvid, tiny_checkpoint, tmp_path, capsys
):
    for by, option in (("knn", ("--neighbors", 3)), ("linear", ("--epochs", 1))):
        options = (
            "--data",
            camvid,
            "--model",
            tiny_checkpoint,
            "--side-px",
            64,
            "--results",
            tmp_path / "results",
        )
        assert run("evaluate", by, "camvid", *options, *option) == 0
    capsys.readouterr()
    assert run("compare", *(tmp_path / "results").iterdir()) == 0
    printed = capsys.readouterr().out
    assert "knn" in printed and "linear" in printed
    assert "2 rows by 2 protocols" in printed


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("knn", "camvid", "--data", "nowhere"), "nowhere is no folder; camvid needs "),
        (
            ("knn", "camvdi", "--data", "data"),
            "unknown benchmark 'camvdi': choose from voc20, ",
        ),
        (
            ("knn", "camvid", "--data", "data", "--neighbors", 0),
            "neighbors is 0, must be at least 1",
        ),
        (
            ("knn", "camvid", "--data", "data", "--model", "none"),
            "the model 'none' is unknown",
        ),
        (
            ("knn", "camvid", "--data", "data", "--results", "data/f"),
            "is a file: --results is a folder",
        ),
    ],
)
def test_bad_input_gives_one_line_and_no_row(
    camvid, tmp_path, monkeypatch, capsys, arguments, line
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/f").touch()
    assert run("evaluate", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("maskfree: error: ")
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_more_neighbors_than_segments_is_said_in_a_line(camvid, tiny_checkpoint, tmp_path, capsys):
    options = (
        "--data",
        camvid,
        "--model",
        tiny_checkpoint,
        "--side-px",
        64,
        "--results",
        tmp_path / "results",
    )
    assert run("evaluate", "knn", "camvid", *options, "--neighbors", 200) == 2
    assert "200 neighbors are asked for, but there are " in capsys.readouterr().err

"""`maskfree distill pseudo-labels`: its help, and what is refused.

Runs: tests/test_self_training.py.
"""

import numpy as np
import pytest
from PIL import Image

from maskfree.cli import main


def run(*arguments):
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in ("distill", "pseudo-labels", *arguments)])
    return raised.value.code


@pytest.fixture
def camvid(tmp_path, photo):
    """A photo with its labels."""
    root = tmp_path / "camvid"
    for folder in ("images", "labels"):
        (root / "train" / folder).mkdir(parents=True)
    photo((64, 48)).save(root / "train/images/a.png")
    Image.fromarray(np.full((48, 64), 3, np.uint8)).save(root / "train/labels/a.png")
    return root


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--words", "sky"], "give photos and --words, or --benchmark and --data"),
        (
            [".", "--words", "sky", "--benchmark", "camvid-train"],
            "give photos and --words, or --benchmark and --data",
        ),
        (["--benchmark", "camvid-train"], "--data is missing: the folder that holds camvid-train"),
        (
            ["--benchmark", "camvid-train", "--data", "nowhere"],
            "nowhere is no folder; camvid-train needs ",
        ),
        (
            ["--benchmark", "camvid-trian", "--data", "."],
            "unknown benchmark 'camvid-trian': choose from voc20, ",
        ),
        (["nowhere", "--words", "sky"], "no folder 'nowhere'"),
        (["empty", "--words", "sky"], "folder 'empty' holds no photo"),
    ],
)
def test_bad_input_gives_one_line_and_no_run(tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("maskfree: error: ")
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("--keep", 0), "keep is 0.0, must be in (0, 1]"),
        (("--balance", 2), "balance is 2.0, must be in [0, 1]"),
        (("--model", "no such model"), "the model 'no such model' is unknown"),
    ],
)
def test_bad_settings_give_one_line_and_no_labels(camvid, tmp_path, capsys, option, line):
    assert (
        run("--benchmark", "camvid-train", "--data", camvid, "--out", tmp_path / "run", *option)
        == 2
    )
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_photos_need_words(camvid, tiny_checkpoint, tmp_path, capsys):
    assert (
        run(
            camvid / "train/images",
            "--model",
            tiny_checkpoint,
            "--out",
            tmp_path / "run",
        )
        == 2
    )
    assert "--words is missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_help_lists_the_settings(capsys):
    assert run("--help") == 0
    printed = capsys.readouterr().out
    for option in (
        "--data",
        "--benchmark",
        "--words",
        "--model",
        "--out",
        "--side-px",
        "--class-prior",
        "--keep",
        "--steps",
    ):
        assert option in printed

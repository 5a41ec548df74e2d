"""`maskfree distill clips4`: its help, bad input, a whole run, a stop.

What it makes: tests/test_distill.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maskfree.cli import main
from maskfree.hub import loading

SMALL = (
    *(
        "--side-px",
        48,
        "--top",
        2,
        "--num-unknown",
        3,
        "--crop-px",
        32,
        "--workers",
        0,
    ),
    *(
        "--segments.kind",
        "felzenszwalb",
        "--train.steps",
        2,
        "--train.batch-size",
        2,
        "--train.accelerator",
        "cpu",
    ),
)


def run(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as raised:
        main(["distill", "clips4", *map(str, arguments)])
    return raised.value.code


@pytest.fixture
def photos(tmp_path: Path, photo: Callable[..., Image.Image]) -> Path:
    """A folder of three photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a.png", (83, 57)), ("b.png", (40, 90)), ("c.png", (64, 64))):
        photo(size).save(folder / name)
    return folder


def test_help_lists_the_settings(capsys: pytest.CaptureFixture[str]):
    assert run("--help") == 0
    printed = capsys.readouterr().out
    for option in (
        "--words",
        "--model",
        "--out",
        "--side-px",
        "--weights",
        "--segments.kind",
        "--train.steps",
    ):
        assert option in printed


def test_from_photos_to_a_model(
    tmp_path: Path, tiny_checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("skimage")
    out = tmp_path / "run"
    words = ("--words", "green grass", "sea/water")
    assert run(photos, *words, "--model", tiny_checkpoint, "--out", out, *SMALL) == 0
    told = f"maskfree segment PHOTO --words 'green grass' sea/water --model {out / 'model'}"
    assert told in capsys.readouterr().out
    assert loading.load(out / "model").name == "tiny-student"
    assert (
        run(photos, *words, "--model", tiny_checkpoint, "--out", out, *SMALL, "--crop-px", 48) == 2
    )
    assert (
        "was begun with another settings.student.crop_px: give another folder"
        in capsys.readouterr().err
    )


def test_a_stop_has_its_own_status(
    tmp_path: Path, tiny_checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("skimage")
    arguments = (
        photos,
        "--words",
        "grass",
        "--model",
        tiny_checkpoint,
        "--out",
        tmp_path / "run",
        *SMALL,
    )
    with monkeypatch.context() as patched:
        patched.setattr("maskfree.engine.train.any_process", lambda fabric: lambda here: True)
        assert run(*arguments) == 130
    assert not (tmp_path / "run" / "model").exists()
    with monkeypatch.context() as patched:
        patched.setattr("maskfree.distillation.clips4.prepare_teacher", _interrupt)
        assert run(*arguments) == 130
    assert run(*arguments) == 0


def _interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--words", "sky"], "no photos were given"),
        (["empty", "--words", "sky"], "folder 'empty' holds no photo"),
        (["nowhere", "--words", "sky"], "no shard 'nowhere'"),
        (["photos", "--words", "sky", "sky"], "the word 'sky' is repeated"),
        (["photos", "--words", "sky", "--top", "0"], "top is 0, must be at least 1"),
        (["photos", "--words", "sky", "--model", "nobody"], "the model 'nobody' is unknown"),
        (["photos", "--words", "sky", "--model", "groupvit"], "groupvit cannot teach"),
        (
            ["photos", "--words", "sky", "--crop-px", "100"],
            "crop_px 100 is not whole patches of 16 px",
        ),
    ],
)
def test_bad_input_gives_one_line_and_no_run(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments,
    line,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(*arguments, "--segments.kind", "felzenszwalb") == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1 and error.startswith("maskfree: error: ")
    assert not (tmp_path / "runs").exists()

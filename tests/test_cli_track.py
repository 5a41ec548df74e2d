"""`maskfree track` as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree import cli


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the command in an empty folder; give its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return int(left.value.code or 0), streams.out, streams.err

    return call


@pytest.fixture
def frames(tmp_path: Path, photo) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(3):
        photo((80, 64)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    ids = np.zeros((64, 80), np.uint8)
    ids[16:48, 20:60] = 255
    Image.fromarray(ids).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


SMALL = ("--side-px", 64, "--radius", 2)


def test_a_first_mask(run, frames: Path, mask: Path, tmp_path: Path, tiny_checkpoint: Path):
    status, out, error = run(
        "track", frames, "--first", mask, "--model", tiny_checkpoint, "--animate", "gif", *SMALL
    )
    assert (status, error) == (0, "")
    assert out == f"{frames}: 3 frames -> maskfree-track\n"
    with Image.open(tmp_path / "maskfree-track/labels/0.png") as labels, Image.open(mask) as given:
        np.testing.assert_array_equal(np.asarray(labels), np.asarray(given) // 255)
    with Image.open(tmp_path / "maskfree-track/overlay.gif") as moving:
        assert (moving.size, moving.n_frames) == ((80, 64), 3)


def test_words_in_a_video(run, frames: Path, tmp_path: Path, tiny_checkpoint: Path):
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    from maskfree.data.clip_files import write_clip
    from maskfree.data.video import open_clip

    write_clip((image for _, image in open_clip(frames).frames()), tmp_path / "film.mp4", rate=8)
    words = ("--words", "dog", "grass", "--every", 2, "--out", "named", "--animate", "mp4")
    status, _, error = run(
        "track", tmp_path / "film.mp4", *words, "--model", tiny_checkpoint, *SMALL
    )
    assert (status, error) == (0, "")
    assert sorted(path.name for path in (tmp_path / "named/labels").iterdir()) == [
        f"0000{i}.png" for i in range(3)
    ]
    assert json.loads((tmp_path / "named/track.json").read_text())["names"] == ["dog", "grass"]
    moving = open_clip(tmp_path / "named/overlay.mp4")
    assert (moving.rate, len(list(moving.frames()))) == (8.0, 3)


def test_only_so_many_frames(run, frames: Path, mask: Path, tmp_path: Path, tiny_checkpoint: Path):
    status, out, _ = run(
        "track", frames, "--first", mask, "--frames", 2, "--model", tiny_checkpoint, *SMALL
    )
    assert (status, "2 frames" in out) == (0, True)
    assert not (tmp_path / "maskfree-track/2.png").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["frames"], "either --first MASK.png or --words"),
        (["frames", "--first", "mask.png", "--words", "dog"], "either --first MASK.png or --words"),
        (["frames", "--first", "mask.png", "--every", "2"], "--every looks for words"),
        (["frames", "--first", "absent.png"], "there is no mask absent.png"),
        (["frames", "--first", "colors.png"], "is in colors"),
        (["frames", "--first", "many.png"], "holds object 300"),
        (["frames", "--first", "empty.png"], "holds no object"),
        (["frames", "--first", "small.png"], "the first mask is 5x4, the frame 0 80x64"),
        (["frames", "--first", "mask.png", "--out", "mask.png"], "--out is a folder"),
        (["frames", "--first", "mask.png", "--frames", "-1"], "must not be negative"),
        (["frames", "--first", "mask.png", "--radius", "-1"], "radius is -1"),
        (["absent.mp4", "--words", "dog"], "there is no video or folder absent.mp4"),
        (["nothing", "--words", "dog"], "the folder nothing holds no photo"),
        (["frames", "--words", "dog", "--background", "sky"], "background"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_in_one_line(
    run, frames, mask, tmp_path, tiny_checkpoint, arguments, reason
):
    (tmp_path / "nothing").mkdir()
    Image.new("RGB", (80, 64), (250, 10, 10)).save(tmp_path / "colors.png")
    Image.fromarray(np.full((64, 80), 300, np.uint16)).save(tmp_path / "many.png")
    Image.new("L", (80, 64)).save(tmp_path / "empty.png")
    Image.new("L", (5, 4), 1).save(tmp_path / "small.png")
    status, out, error = run("track", *arguments, "--model", tiny_checkpoint)
    assert (status, out) == (2, "")
    assert error.startswith("maskfree: error: ") and error.count("\n") == 1, error
    assert reason in error
    assert not list(tmp_path.rglob("*.gif")) and not (tmp_path / "maskfree-track").exists()


def test_a_long_clip_needs_a_video(
    run, frames: Path, mask: Path, monkeypatch, tiny_checkpoint: Path
):
    monkeypatch.setattr("maskfree.data.clip_files.MAX_PICTURES", 2)
    options = ("--first", mask, "--model", tiny_checkpoint, "--animate", "webp", *SMALL)
    status, _, error = run("track", frames, *options)
    assert (status, "use mp4" in error) == (2, True)
    assert run("track", frames, *options, "--frames", 2)[0] == 0

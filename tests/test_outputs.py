"""No command overwrites what it reads, or what somebody else made; `segment` is tested in
test_cli_segment.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluate.result_rows import ROW
from maskfree import cli
from maskfree.data.clip_files import write_clip
from maskfree.distillation.self_training import self_train
from maskfree.distillation.self_training_config import SelfTrainConfig
from maskfree.distillation.student_config import StudentRunConfig
from maskfree.engine.config import TrainConfig
from maskfree.engine.train import fit
from maskfree.evaluation.reporting.results import write_row
from maskfree.files.outputs import Outputs, is_replaceable
from maskfree.recipes import vilseg_debug

Run = Callable[..., tuple[int, str]]
TRACK = ("--side-px", 64, "--radius", 2)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command in an empty folder; give its exit status and what it said on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        return int(left.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture
def frames(tmp_path: Path, photo) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(2):
        photo((80, 64)).save(folder / f"{index}.png")
    return folder


def mask(path: Path) -> Path:
    ids = np.zeros((64, 80), np.uint8)
    ids[16:48, 20:60] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(run: Run, tmp_path: Path, *arguments: object) -> str:
    """The one line with which a command refuses, having written nothing."""
    before = contents(tmp_path)
    status, error = run(*arguments)
    assert status == 2, error
    assert error.startswith("maskfree: error: ") and error.count("\n") == 1, error
    assert contents(tmp_path) == before
    return error


def test_plans_of_paths(tmp_path: Path):
    (tmp_path / "Photo.png").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    outputs = Outputs([tmp_path / "Photo.png", tmp_path / "not there.png"])
    for name in ("Photo.png", "photo.PNG", "link/Photo.png", "x/../Photo.png"):
        assert outputs.clash(tmp_path / name) == tmp_path / "Photo.png"
    outputs.add(tmp_path / "é.png", tmp_path / "other.png")
    with pytest.raises(ValueError, match="would overwrite"):
        outputs.add(tmp_path / "E\u0301.png")  # the same letter, of two parts
    with pytest.raises(ValueError, match="holds what this run reads"):
        outputs.add_folder(tmp_path / "link")
    assert outputs.add_stem(tmp_path, "photo", (".png",), {"photo-2"}) == "photo-3"
    assert outputs.add_stem(tmp_path, "photo", (".png",)) == "photo-2"


@pytest.mark.parametrize(
    "name",
    ["first.png", "overlay.webp", "overlay.gif", "track.json", "labels/1.png", "labels/9.png"],
)
def test_track_overwrites_no_file_of_somebody_else(
    run: Run, frames: Path, tmp_path: Path, tiny_checkpoint: Path, photo, name: str
):
    """A file that no run of maskfree wrote; one of an earlier run is replaced."""
    out = tmp_path / "out"
    kind = "gif" if name.endswith("gif") else "webp"
    arguments = (
        "track",
        frames,
        "--first",
        mask(tmp_path / "mask.png"),
        "--animate",
        kind,
        "--out",
        out,
    )
    arguments += ("--model", tiny_checkpoint, *TRACK)
    (out / name).parent.mkdir(parents=True)
    if name.endswith("json"):
        (out / name).write_text('{"tracks": []}')
    else:
        photo((80, 64)).save(out / name)
    assert f"{out / name} exists and is no result of maskfree" in refused(run, tmp_path, *arguments)

    (out / name).unlink()
    for _ in range(2):
        assert run(*arguments) == (0, "")
    assert is_replaceable(out / name)


def test_track_overwrites_no_input(run: Run, frames: Path, tmp_path: Path, tiny_checkpoint: Path):
    first = mask(tmp_path / "first.png")
    options = ("--model", tiny_checkpoint, *TRACK)
    assert "would overwrite" in refused(
        run, tmp_path, "track", frames, "--first", first, "--out", ".", *options
    )
    assert "holds the frames" in refused(
        run, tmp_path, "track", frames, "--words", "dog", "--out", frames, *options
    )

    # the labels that a run wrote are the next one's frames, or its first mask
    assert run("track", frames, "--first", first, "--out", "a", *options) == (0, "")
    labels = tmp_path / "a" / "labels"
    error = refused(run, tmp_path, "track", labels, "--words", "dog", "--out", "a", *options)
    assert "holds what this run reads" in error
    error = refused(
        run, tmp_path, "track", frames, "--first", labels / "0.png", "--out", "a", *options
    )
    assert "holds what this run reads" in error
    capitals = mask(tmp_path / "b" / "FIRST.PNG")
    assert "would overwrite" in refused(
        run, tmp_path, "track", frames, "--first", capitals, "--out", "b", *options
    )


def test_track_refuses_a_film_that_its_overlay_would_be(
    run: Run, frames: Path, tmp_path: Path, tiny_checkpoint: Path
):
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    with Image.open(frames / "0.png") as picture:
        write_clip([picture.convert("RGB")] * 2, tmp_path / "overlay.mp4", 5)
    options = (
        "--words",
        "dog",
        "--animate",
        "mp4",
        "--out",
        ".",
        "--model",
        tiny_checkpoint,
        *TRACK,
    )
    assert "would overwrite" in refused(run, tmp_path, "track", "overlay.mp4", *options)


def test_search_overwrites_no_photo(
    run: Run, frames: Path, tmp_path: Path, tiny_checkpoint: Path, photo
):
    """The sheet gets another name, which is said.

    A second run does not replace a sheet that it was shown.
    """
    photo((50, 40)).save(frames / "dog.search.png")
    options = ("--model", tiny_checkpoint, "--side-px", 64, "--num-segments", 4, "--out", frames)
    before = contents(frames)
    for number in (2, 3):
        status, error = run("search", "dog", frames, *options)
        assert status == 0
        assert f"note: the results are named dog.search-{number}.*" in error
        assert before.items() <= contents(frames).items()
        before = contents(frames)


def test_search_by_a_word_too_long_for_a_file_name(
    run: Run, frames: Path, tmp_path: Path, tiny_checkpoint: Path
):
    options = ("--model", tiny_checkpoint, "--side-px", 64, "--num-segments", 4)
    status, _ = run("search", "dog " + "木" * 90, frames, *options)  # 274 bytes in UTF-8
    assert status == 0
    assert len(list((tmp_path / "maskfree-out").glob("dog*木*.search.*"))) == 2


def test_compare_does_not_draw_over_a_row(run: Run, tmp_path: Path):
    path = write_row(ROW, tmp_path)
    row = path.rename(tmp_path / "row.svg")
    assert "would overwrite row.svg" in refused(
        run, tmp_path, "compare", row.name, "--out", row.resolve()
    )


@pytest.mark.parametrize("out", ["frames", "frames/segments", "link"])
def test_region_maps_do_not_lie_among_photos(run: Run, frames: Path, tmp_path: Path, out: str):
    """There the photos were taken for maps, or the maps for photos by the next run."""
    (tmp_path / "link").symlink_to(frames)
    options = ("--kind", "felzenszwalb", "--out", out)
    assert f"{out} lies in the photos' folder" in refused(
        run, tmp_path, "prepare", "segments", frames, *options
    )


def test_pngs_of_somebody_else_are_no_region_maps(run: Run, frames: Path, tmp_path: Path):
    stray = mask(tmp_path / "labels" / "0.png")
    options = ("--kind", "felzenszwalb", "--out", stray.parent)
    assert "0.png was not made by an earlier run" in refused(
        run, tmp_path, "prepare", "segments", frames, *options
    )


def test_a_models_weights_are_no_teachers_map(
    run: Run, frames: Path, tmp_path: Path, tiny_checkpoint: Path
):
    (frames / "0.png").rename(frames / "weights.png")
    options = ("--model", tiny_checkpoint, "--side-px", 64, "--out", tiny_checkpoint)
    error = refused(run, tmp_path, "prepare", "teacher", frames, *options)
    assert "weights.safetensors was not made by an earlier run" in error


def test_prototypes_overwrite_nothing_else(
    run: Run, frames: Path, tmp_path: Path, tiny_checkpoint: Path
):
    maps = tmp_path / "maps"
    assert run(
        "prepare", "teacher", frames, "--model", tiny_checkpoint, "--side-px", 64, "--out", maps
    ) == (0, "")
    arguments = (
        "prepare",
        "prototypes",
        maps,
        "--words",
        "dog",
        "--model",
        tiny_checkpoint,
        "--top",
        1,
    )
    (tmp_path / "notes.txt").write_text("mine")
    for out, reason in (
        (maps / "0.safetensors", "would overwrite"),
        (tiny_checkpoint / "weights.safetensors", "would overwrite"),
        (tmp_path / "notes.txt", "holds no prototypes"),
        (maps, "is a folder"),
    ):
        assert reason in refused(run, tmp_path, *arguments, "--out", out)
    for _ in range(2):
        assert run(*arguments, "--out", "new/prototypes.safetensors") == (0, "")


def test_training_does_not_replace_what_it_starts_from(tmp_path: Path, tiny_checkpoint: Path):
    recipe = vilseg_debug()
    model = tmp_path / "run" / "model"
    shutil.copytree(tiny_checkpoint, model)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="holds what this run reads"):
        fit(replace(recipe, init=str(model)), tmp_path / "run")
    with pytest.raises(ValueError, match="model exists, and is no part of a run"):
        fit(recipe, tmp_path / "run")
    assert contents(tmp_path) == before


def test_self_training_does_not_replace_its_teacher(
    tmp_path: Path, frames: Path, tiny_checkpoint: Path
):
    model = tmp_path / "run" / "model"
    shutil.copytree(tiny_checkpoint, model)
    before = contents(tmp_path)
    settings = SelfTrainConfig(StudentRunConfig(TrainConfig(accelerator="cpu")))
    with pytest.raises(ValueError, match="holds what this run reads"):
        self_train(str(model), ["dog"], sorted(frames.iterdir()), tmp_path / "run", settings)
    assert contents(tmp_path) == before

from __future__ import annotations

import errno
import io
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree import cli, progress
from maskfree.cli.segment import _plan_stems
from maskfree.hub import loading
from maskfree.hub.catalog import MODELS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command in an empty folder; give its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return int(left.value.code or 0), streams.out, streams.err

    return call


@pytest.fixture
def segment(run: Run, tiny_checkpoint: Path) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        # Few words would get a background, and a note that says so.
        rule = () if "--background" in arguments else ("--background", "none")
        return run("segment", *arguments, *rule, "--model", tiny_checkpoint)

    return call


@pytest.fixture
def meadow(tmp_path: Path, photo) -> Path:
    path = tmp_path / "meadow.jpg"
    photo((83, 57)).save(path)
    return path


def one_line(error: str) -> str:
    assert error.startswith("maskfree: error: "), error
    assert error.count("\n") == 1, error
    return error


def test_photo_gets_three_files(segment: Run, meadow: Path, tmp_path: Path):
    status, out, error = segment(meadow, "--words", "dog", "grass", "tv monitor")
    assert (status, error) == (0, "")
    names = [f"maskfree-out/meadow{suffix}" for suffix in (".png", ".overlay.png", ".json")]
    assert out.startswith(f"{meadow}: ")
    assert out.count("\n") == 1
    assert all(name in out for name in names)
    assert "%" in out
    with Image.open(tmp_path / names[0]) as image:
        labels = np.asarray(image)
    assert labels.shape == (57, 83)
    sidecar = json.loads((tmp_path / names[2]).read_text())
    assert sidecar["words"] == [["dog"], ["grass"], ["tv monitor"]]
    assert sum(sidecar["areas"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "words", [["dog", "sofa/couch", "sky"], ["dog,sofa/couch,sky"], ["dog,sofa/couch", "sky"]]
)
def test_words_by_space_and_by_comma(segment: Run, meadow: Path, tmp_path: Path, words: list[str]):
    assert segment(meadow, "--words", *words, "--out", "here")[0] == 0
    sidecar = json.loads((tmp_path / "here" / "meadow.json").read_text())
    assert sidecar["words"] == [["dog"], ["sofa", "couch"], ["sky"]]


def test_scores_of_all_words_are_written_on_request(
    segment: Run, meadow: Path, tmp_path: Path, tiny_checkpoint: Path
):
    words = ["dog", "grass", "tv monitor"]
    assert segment(meadow, "--words", *words, "--scores")[0] == 0
    out = tmp_path / "maskfree-out"
    with np.load(out / "meadow.scores.npz") as read:
        names, scores, extent = read["names"].tolist(), read["scores"], read["extent"]
    assert names == words

    expected = loading.load(tiny_checkpoint, device="cpu").with_words(words).score_map(meadow)
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert (extent <= scores.shape[1:]).all() and (extent > 0).all()

    said = json.loads((out / "meadow.json").read_text())
    assert set(said["confidence"]) == {name for name, area in said["areas"].items() if area}
    assert all(0 <= value <= 1 for value in said["confidence"].values())


def test_few_words_get_a_background_and_a_line_that_says_so(
    run: Run, meadow: Path, tmp_path: Path, tiny_checkpoint: Path
):
    def background_of(*arguments: str) -> tuple[dict | None, str]:
        status, _, error = run("segment", meadow, *arguments, "--model", tiny_checkpoint)
        assert status == 0
        return json.loads((tmp_path / "maskfree-out/meadow.json").read_text())["background"], error

    record, error = background_of("--words", "dog", "grass")
    assert record and record["rule"] == "scene" and record["default"]
    (said,) = (line for line in error.splitlines() if "note" in line)
    assert said.startswith("maskfree: note: few words compete with ")
    assert all(word in said for word in record["words"]) and "--background" in said

    record, error = background_of("--words", "dog", "--quiet")
    assert record and record["rule"] == "scene" and not error
    record, error = background_of("--words", "dog", "--background", "none")
    assert record is None and "note" not in error
    record, error = background_of("--words", "dog", "grass", "sofa")
    assert record is None and "note" not in error
    record, error = background_of("--words", "dog", "--background", "scene")
    assert record and "default" not in record and "note" not in error


def test_settings_arrive_in_the_sidecar(segment: Run, meadow: Path, tmp_path: Path):
    options = [
        "--background",
        "words:wall,sky",
        "--templates",
        "ensemble",
        "--side-px",
        "64",
        "--batch-size",
        "3",
    ]
    assert segment(meadow, "--words", "dog", *options)[0] == 0
    sidecar = json.loads((tmp_path / "maskfree-out" / "meadow.json").read_text())
    assert sidecar["background"] == {"rule": "words:wall,sky", "id": 1}
    assert len(sidecar["templates"]) > 1
    assert sidecar["resized"]["height"] == 64
    assert sidecar["inference"]["batch_size"] == 3


def test_bad_photo_in_a_list_is_reported_and_the_others_are_done(
    segment: Run, meadow: Path, tmp_path: Path
):
    (tmp_path / "text.jpg").write_text("no photo")
    status, out, error = segment("none.jpg", meadow, "text.jpg", "--words", "dog", "sky")
    assert status == 2
    assert out.count("\n") == 1
    assert [line.split(": ", 2)[2] for line in error.splitlines()] == [
        "there is no file none.jpg",
        "text.jpg is not an image that can be read",
    ]
    assert len(list((tmp_path / "maskfree-out").iterdir())) == 3


def test_photos_of_one_stem_do_not_overwrite_each_other(
    segment: Run, meadow: Path, tmp_path: Path, photo
):
    other = tmp_path / "other" / "meadow.png"
    other.parent.mkdir()
    photo((40, 30)).save(other)
    status, out, _ = segment(meadow, other, "--words", "dog", "sky")
    assert status == 0
    assert "meadow-2.json" in out
    names = {
        path.name: json.loads(path.read_text())["photo"]["name"]
        for path in tmp_path.glob("maskfree-out/*.json")
    }
    assert names == {"meadow.json": "meadow.jpg", "meadow-2.json": "meadow.png"}


def test_stems_are_never_the_same(tmp_path: Path):
    photos = [Path(name) for name in ("a/x.jpg", "b/x.jpg", "x-2.jpg", "X.png", "y.jpg", "x-2.gif")]
    assert _plan_stems(photos, tmp_path) == ["x", "x-3", "x-2", "X-4", "y", "x-2-2"]


def test_a_photo_beside_its_results_stays(segment: Run, tmp_path: Path, photo):
    """The map of photo.png would be photo.png: it gets another name, which is said, and again in a
    second run.
    """
    photo((40, 30)).save(tmp_path / "photo.png")
    before = (tmp_path / "photo.png").read_bytes()
    for _ in range(2):
        status, out, error = segment("photo.png", "--words", "dog", "sky", "--out", ".")
        assert status == 0
        assert "photo-2.png" in out
        assert (
            error.startswith("maskfree: note: photo.png: its results are named photo-2.*")
            and error.count("\n") == 1
        )
    assert (tmp_path / "photo.png").read_bytes() == before
    assert {path.name for path in tmp_path.glob("photo*")} == {
        "photo.png",
        "photo-2.png",
        "photo-2.overlay.png",
        "photo-2.json",
    }


@pytest.mark.parametrize("make", ["other_case", "symlink", "hard_link", "link_to_folder", "dots"])
def test_a_photo_is_known_under_every_name(segment: Run, tmp_path: Path, photo, make: str):
    """The results of one photo would be written where the run's other photo is, by another spelling
    of its path.
    """
    (tmp_path / "album").mkdir()
    photo((40, 30)).save(tmp_path / "meadow.jpg")
    album = tmp_path / "album" / "meadow.png"
    photo((30, 40)).save(album)
    before = album.read_bytes()
    given, out = album, "album"
    if make == "other_case":
        given = given.rename(given.with_name("MEADOW.PNG"))
    elif make == "symlink":
        given = tmp_path / "elsewhere.png"
        given.symlink_to(album)
    elif make == "hard_link":
        given = tmp_path / "elsewhere.png"
        given.hardlink_to(album)
    elif make == "link_to_folder":
        (tmp_path / "also").symlink_to(tmp_path / "album")
        out = "also"
    else:
        given = tmp_path / "album" / ".." / "album" / "meadow.png"
    status, out_text, _ = segment("meadow.jpg", given, "--words", "dog", "sky", "--out", out)
    assert status == 0
    assert given.read_bytes() == before
    assert make == "other_case" or album.read_bytes() == before
    assert "meadow-2.png" in out_text


def test_a_result_is_not_another_photos_overlay(segment: Run, tmp_path: Path, photo):
    (tmp_path / "in").mkdir()
    for name in ("a.overlay.png", "a.png", "b.png", "b.overlay.png"):
        photo((40, 30)).save(tmp_path / "in" / name)
    names = ["in/a.overlay.png", "in/a.png", "in/b.png", "in/b.overlay.png"]
    status, _, _ = segment(*names, "--words", "dog", "sky", "--out", "out")
    assert status == 0
    found = {
        path.name: json.loads(path.read_text())["photo"]["name"]
        for path in (tmp_path / "out").glob("*.json")
    }
    assert found == {
        "a.overlay.json": "a.overlay.png",
        "a-2.json": "a.png",
        "b.json": "b.png",
        "b.overlay-2.json": "b.overlay.png",
    }
    assert len(list((tmp_path / "out").iterdir())) == 12


@pytest.mark.real
def test_the_reported_clashes(segment: Run, tmp_path: Path, shared: Path):
    before = {}
    for path in [
        *(shared / "faults").glob("overwrites_photo/*"),
        *(shared / "faults").glob("overlay_name_clash/*"),
    ]:
        before[path.name] = path.read_bytes()
        (tmp_path / path.name).write_bytes(before[path.name])
    assert set(before) == {"photo.png", "a.jpg", "a.overlay.jpg"}
    assert segment(*before, "--words", "sky", "tree", "--out", ".")[0] == 0
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {record["photo"]["name"] for record in records} == set(before)
    assert len(list(tmp_path.glob("*.png"))) == 1 + 2 * len(before)


@pytest.mark.parametrize("name", ["meadow.png", "meadow.json", "meadow.overlay.png"])
def test_a_file_of_somebody_else_is_not_overwritten(
    segment: Run, meadow: Path, tmp_path: Path, photo, name: str
):
    """A photo stored twice, or labelme's polygons beside it: no input of the run, but not its
    result either.
    """
    if name.endswith("json"):
        (tmp_path / name).write_text('{"shapes": [], "imagePath": "meadow.jpg"}')
    else:
        photo((83, 57)).save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    assert segment(meadow, "--words", "dog", "sky", "--out", ".")[0] == 0
    assert (tmp_path / name).read_bytes() == before
    assert (tmp_path / "meadow-2.json").is_file()


def test_earlier_results_are_replaced(segment: Run, meadow: Path, tmp_path: Path):
    for word in ("dog", "cat"):
        assert segment(meadow, "--words", word)[0] == 0
    assert len(list((tmp_path / "maskfree-out").iterdir())) == 3
    assert json.loads((tmp_path / "maskfree-out" / "meadow.json").read_text())["words"] == [["cat"]]


def test_save_does_not_overwrite_a_photo(tiny_checkpoint: Path, tmp_path: Path, photo):
    photo((40, 30)).save(tmp_path / "photo.png")
    result = loading.load(tiny_checkpoint).with_words(["dog", "sky"])(tmp_path / "photo.png")
    with pytest.raises(FileExistsError, match=r"photo\.png exists and is no result of maskfree"):
        result.save(tmp_path)
    result.save(tmp_path / "out")
    result.save(tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["é" * 125 + ".jpg", os.fsdecode(b"caf\xe9.jpg")], ids=["long", "no UTF-8"]
)
def test_a_photo_whose_results_cannot_be_named(
    segment: Run, meadow: Path, tmp_path: Path, name: str
):
    """The odd one, whose name is shown in letters that can be printed, is reported.

    The other is done.
    """
    (tmp_path / name).write_bytes(meadow.read_bytes())
    status, out, error = segment(name, meadow, "--words", "dog", "sky")
    assert status == 2
    assert out.count("\n") == 1 and "meadow.overlay.png" in out
    assert name.encode("utf-8", "backslashreplace").decode() in one_line(error)
    assert {path.stem.partition(".")[0] for path in (tmp_path / "maskfree-out").iterdir()} == {
        "meadow"
    }


def test_a_name_that_the_terminal_cannot_show(
    meadow: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "草地.jpg").write_bytes(meadow.read_bytes())
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "cp1252") for _ in range(2))
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setattr("sys.stderr", stderr)
    with pytest.raises(SystemExit) as left:
        cli.main(
            [
                "segment",
                "草地.jpg",
                "地.jpg",
                "meadow.jpg",
                "--words",
                "dog",
                "--model",
                str(tiny_checkpoint),
            ]
        )
    assert left.value.code == 2  # of the photo that is not there
    printed = []
    for stream in (stdout, stderr):
        stream.seek(0)
        printed.append(stream.read())
    assert [line.partition(": ")[0] for line in printed[0].splitlines()] == [
        r"\u8349\u5730.jpg",
        "meadow.jpg",
    ]
    assert r"there is no file \u5730.jpg" in printed[1]
    assert len(list((tmp_path / "maskfree-out").iterdir())) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--words", "dog"], "no photos were given"),
        (["none.jpg", "--words", "dog"], "there is no file none.jpg"),
        ([".", "--words", "dog"], ". is a folder: give a photo"),
        (["none.jpg"], "no words were given"),
        (["none.jpg", "--words"], "no words were given"),
        (["none.jpg", "--words", ""], "empty word"),
        (["none.jpg", "--words", "dog,,cat"], "empty word"),
        (["none.jpg", "--words", "dog", "dog"], "'dog' is repeated"),
        (["none.jpg", "--words", "dog/hound", "Hound"], "'Hound' is repeated"),
        (["none.jpg", "--words", "dog\ncat"], "newline"),
        (["none.jpg", "--words", "dog", "--background", "sky"], "background rule 'sky' is unknown"),
        (["none.jpg", "--words", "dog", "--background", "threshold:2"], "'2' is not a cosine"),
        (["none.jpg", "--words", "sky", "--background", "words:sky"], "'sky' is repeated"),
        (["none.jpg", "--words", "dog", "--templates", "fancy"], "prompt set 'fancy' is unknown"),
        (["none.jpg", "--words", "dog", "--side-px", "0"], "side_px is 0"),
        (["none.jpg", "--words", "dog", "--device", "toaster"], "device 'toaster' is not there"),
        (
            ["none.jpg", "--words", "dog", "--grouping", "pixels", "--regions", "soft"],
            "--regions soft is for clusters of an online head",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    segment: Run, tmp_path: Path, arguments: list[str], message: str
):
    before = sorted(tmp_path.rglob("*"))
    status, out, error = segment(*arguments)
    assert (status, out) == (2, "")
    assert message in one_line(error)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "grouping"),
    [
        ([], "own"),
        (["--grouping", "kmeans"], "kmeans"),
        (["--grouping", "clusters"], "clusters"),
        (["--regions", "hard"], "clusters"),
        (["--grouping", "clusters", "--regions", "soft"], "soft clusters"),
    ],
)
def test_groups_of_pixels_are_chosen(
    segment: Run, meadow: Path, tmp_path: Path, options: list[str], grouping: str
):
    assert segment(meadow, "--words", "dog", *options)[0] == 0
    sidecar = json.loads((tmp_path / "maskfree-out" / "meadow.json").read_text())
    assert sidecar["inference"]["grouping"] == grouping


def test_clusters_of_a_model_without_a_head(run: Run, meadow: Path):
    status, _, error = run("segment", meadow, "--words", "dog", "--grouping", "clusters")
    assert status == 2
    assert "the model 'pocket': grouping by clusters needs the online" in one_line(error)


def test_unknown_model(run: Run, meadow: Path):
    status, _, error = run("segment", meadow, "--words", "dog", "--model", "pockett")
    assert status == 2
    assert "the model 'pockett' is unknown: pocket" in one_line(error)


def test_damaged_checkpoint(segment: Run, meadow: Path, tiny_checkpoint: Path):
    (tiny_checkpoint / "weights.safetensors").write_bytes(b"junk" * 30)
    status, _, error = segment(meadow, "--words", "dog")
    assert status == 2
    assert "weights.safetensors" in one_line(error)


def test_output_that_is_a_file(segment: Run, meadow: Path, tmp_path: Path):
    (tmp_path / "here").write_text("mine")
    status, out, error = segment(meadow, "--words", "dog", "--out", "here")
    assert (status, out) == (2, "")
    assert "the output here is a file" in one_line(error)
    assert (tmp_path / "here").read_text() == "mine"


def test_output_below_a_file(segment: Run, meadow: Path, tmp_path: Path):
    (tmp_path / "here").write_text("mine")
    status, _, error = segment(meadow, "--words", "dog", "--out", "here/below")
    assert status == 2
    assert "cannot write here/below" in one_line(error)


def test_full_disk(segment: Run, meadow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The photo that no room is left for is reported, and leaves nothing.

    One that there is room for is done.
    """
    real = Image.Image.save

    def full(self, path, *arguments, **options):
        if Path(path).name == "meadow.overlay.png":
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, path, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    status, out, error = segment(meadow, meadow, "--words", "dog")
    assert status == 2
    reported = f"{meadow}: cannot write maskfree-out/meadow.*: No space left on device"
    assert reported in one_line(error.splitlines(True)[-1])
    assert out.count("\n") == 1
    assert {path.name.partition(".")[0] for path in (tmp_path / "maskfree-out").iterdir()} == {
        "meadow-2"
    }


def test_unknown_option_and_command(run: Run):
    assert run("segment", "a.jpg", "--wrods", "dog")[0] == 2
    assert run("segmentt")[0] == 2
    assert run()[0] == 2


def test_interruption(segment: Run, meadow: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load", interrupt)
    assert segment(meadow, "--words", "dog")[0] == 130


def test_models_are_listed(run: Run):
    status, out, _ = run("models")
    assert status == 0
    heading, rule, *rows = out.splitlines()
    assert heading.split()[:3] == ["name", "here", "METHOD:SOURCE"] and set(rule.strip()) == {"─"}
    # One line for each model where the output is no terminal.
    listed = {row.split()[0]: row for row in rows[: rows.index("")]}
    assert list(listed) == list(MODELS)
    assert "in the package" in listed["pocket"]
    for name, row in listed.items():
        if name != "pocket":
            assert f" {MODELS[name].method}:{MODELS[name].source} " in row
    cells = listed["naclip"].split("  ")
    assert [cell.strip() for cell in cells if cell.strip()][5:11] == (
        ["16", "336", "58.9", "-", "32.2", "17.4"]
    )


def test_help_names_every_command(run: Run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(command in out for command in cli.COMMANDS)


_MAPPED = """
import ctypes
from maskfree.cli import common

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

class Info(ctypes.Structure):  # d: number of blocks that come straight from the system
    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]

libc.mallinfo2.restype = Info
counts = [libc.mallinfo2().d]
for megabytes in (100, 0, 100, 500):
    common.keep_freed_memory() if not megabytes else libc.malloc(megabytes << 20)
    counts.append(libc.mallinfo2().d)
print(*(after - before for before, after in zip(counts, counts[1:])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_large_blocks_stay_with_the_process():
    done = subprocess.run(
        [sys.executable, "-c", _MAPPED], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "0", "0", "1"]


_WAITING = """
import os
from maskfree import cli
try:
    cli.main(["models"])
except SystemExit:
    print(os.environ["OMP_WAIT_POLICY"], os.environ["KMP_BLOCKTIME"])
"""


@pytest.mark.parametrize(
    ("chosen", "kept"), [({}, "PASSIVE 0"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE 0")]
)
def test_commands_wait_passively_unless_the_user_chose(chosen: dict[str, str], kept: str):
    others = {name: value for name, value in os.environ.items() if "WAIT" not in name}
    others.pop("KMP_BLOCKTIME", None)
    done = subprocess.run(
        [sys.executable, "-c", _WAITING],
        check=True,
        capture_output=True,
        text=True,
        env=others | chosen,
    )
    assert done.stdout.endswith(f"{kept}\n")


@pytest.mark.parametrize("arguments", [["--version"], ["-V"], ["-V", "segment"]])
def test_the_version_is_that_of_the_package(run, arguments: list[str]):
    status, out, _ = run(*arguments)
    assert (status, out.strip()) == (0, f"maskfree {version('maskfree')}")


def test_quiet_says_nothing_of_photos_that_went_well(segment: Run, meadow: Path, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"none")
    status, out, error = segment(meadow, "broken.png", "--words", "dog", "--quiet")
    assert (status, out) == (2, "")
    assert "broken.png" in one_line(error)
    assert (tmp_path / "maskfree-out/meadow.png").is_file()


def test_long_runs_show_how_far_they_have_come(
    segment: Run, meadow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    photos = [meadow, *(tmp_path / f"{name}.jpg" for name in "abc")]
    for other in photos[1:]:
        other.write_bytes(meadow.read_bytes())
    _, _, error = segment(*photos, "--words", "dog")
    assert re.fullmatch(r"(maskfree: photos: \d of 4, \d:\d\d:\d\d left\n){4}", error)
    assert segment(*photos, "--words", "dog", "--quiet")[1:] == ("", "")

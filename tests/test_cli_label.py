"""The command `maskfree label`: what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kills import killed_at_each_step
from maskfree import cli
from maskfree.data.id_maps import read_ids
from maskfree.files import leftovers
from maskfree.hub import loading
from maskfree.label import run as labeling
from maskfree.label.classes import words_sha256
from maskfree.label.labeled import LabeledPhoto
from maskfree.label.manifest import MANIFEST
from maskfree.label.record import classes_of, read_record
from maskfree.label.store import Store

Run = Callable[..., tuple[int, str, str]]
WORDS = ("--words", "dog", "grass/lawn", "sky")


@pytest.fixture
def label(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_checkpoint: Path,
) -> Run:
    """Label with a tiny model into the folder "out"; give exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        given = ["label", *map(str, arguments), "--out", "out"]
        if "--model" not in given:
            given += ["--model", str(tiny_checkpoint)]
        with pytest.raises(SystemExit) as left:
            cli.main(given)
        streams = capsys.readouterr()
        return int(left.value.code or 0), streams.out, streams.err

    return call


@pytest.fixture
def photos(tmp_path: Path, photo) -> Path:
    """A folder of three photos of different sizes, two of them of one stem."""
    folder = tmp_path / "photos"
    numbers = np.random.default_rng(0)
    for name, size in (("a.png", (83, 57)), ("b/a.png", (40, 61)), ("b/c.jpg", (64, 48))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        blocks = Image.fromarray(numbers.integers(0, 256, (4, 5, 3), np.uint8)).resize(size)
        Image.blend(blocks, photo(size), 0.4).save(folder / name)
    return folder


def rows(*columns: str, out: str = "out") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(Path(out) / MANIFEST)
    try:
        found = connection.execute(f"SELECT {', '.join(columns)} FROM photos ORDER BY name")
        return found.fetchall()
    finally:
        connection.close()


def labels(out: str = "out") -> dict[str, bytes]:
    """Label maps by their names."""
    folder = Path(out) / "labels"
    return {
        path.relative_to(folder).as_posix(): read_ids(path).tobytes()
        for path in folder.rglob("*.png")
    }


def labeled(out: str = "out") -> list[LabeledPhoto]:
    record = read_record(Path(out))
    assert record is not None
    return list(Store(Path(out), classes_of(record)).photos())


def error_line(error: str) -> str:
    assert error.startswith("maskfree: error: "), error
    assert error.count("\n") == 1, error
    return error


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models that were loaded."""
    loaded: list[str] = []
    load = loading.load

    def noted(model: Any, *more: Any) -> Any:
        loaded.append(str(model))
        return load(model, *more)

    monkeypatch.setattr(loading, "load", noted)
    return loaded


def test_labels_are_those_of_segment(label: Run, photos: Path, tiny_checkpoint: Path):
    status, out, error = label("photos", *WORDS)
    assert (status, error) == (0, "")
    assert out.startswith("3 photos labeled, 0 were there; ")

    names = ["a", "b/a", "b/c"]
    segmenter = loading.load(tiny_checkpoint).with_words(["dog", "grass/lawn", "sky"])
    for each, name in zip(labeled(), names, strict=True):
        result = segmenter(each.path)
        assert each.name == name
        assert (each.height, each.width) == result.labels.shape == each.labels.shape
        np.testing.assert_array_equal(each.labels, result.labels)
        # Regions cover the photo once, each with its own class.
        cover = np.zeros(each.labels.shape, int)
        for region in each.regions:
            cover += region.mask
            assert (each.labels[region.mask] == region.class_id).all()
            assert region.name == ("dog", "grass", "sky")[region.class_id]
            assert region.confidence == pytest.approx(
                result.confidence[region.mask].mean(), abs=0.01
            )
        assert (cover == 1).all()
        with Image.open(f"out/labels/{name}.png") as image:
            assert image.mode == "P"
            assert image.text["words_sha256"] == words_sha256(classes_of(read_record(Path("out"))))
    assert Path("out/classes.txt").read_text() == "dog\ngrass/lawn\nsky\n"


def test_few_words_compete_with_the_scene_and_it_is_said(label: Run, photos: Path):
    status, _, error = label("photos", "--words", "dog", "grass")
    assert status == 0
    assert error.startswith("maskfree: note: few words compete with ")
    assert error.count("\n") == 1
    record = read_record(Path("out"))
    assert record is not None
    assert record["asked"]["background"] == "scene"
    words = record["made"]["background_words"]
    assert "grass" not in words and all(word in error for word in words)
    assert [each.name for each in classes_of(record)] == ["dog", "grass", "background"]

    # Said where something is labeled, and not to those who asked for a rule or for silence.
    assert label("photos", "--words", "dog", "grass")[2] == ""
    assert label("photos", "--words", "dog", "grass", "--redo", "--quiet")[2] == ""
    rule = ("--background", "scene")
    assert label("photos", "--words", "dog", "grass", "--redo", *rule)[2] == ""
    assert label("photos", *WORDS, "--redo")[2] == ""


def test_the_manifest_has_a_row_for_each_photo(label: Run, photos: Path):
    label("photos", *WORDS)
    for source, name, width, height, words, confidence, seconds, state, error in rows(
        *("source", "name", "width", "height", "words", "confidence", "seconds", "state", "error")
    ):
        assert Path(source).relative_to(photos).with_suffix("").as_posix() == name
        with Image.open(source) as image:
            assert image.size == (width, height)
        content = json.loads(words)
        assert sum(each["area"] for each in content.values()) == pytest.approx(1)
        mean = sum(each["area"] * each["confidence"] for each in content.values())
        assert mean == pytest.approx(confidence)
        assert seconds > 0
        assert (state, error) == ("done", None)
    hashes = rows("sha256", "bytes")
    assert len(set(hashes)) == 3


def test_what_is_done_is_not_done_again(label: Run, photos: Path, loads: list[str]):
    label("photos", *WORDS)
    before = {path: path.stat().st_mtime_ns for path in Path("out/labels").rglob("*.png")}
    loads.clear()
    status, out, _ = label("photos", *WORDS)
    assert status == 0
    assert out.startswith("0 photos labeled, 3 were there -> ")
    assert loads == [], "the network is loaded for nothing"
    assert before == {path: path.stat().st_mtime_ns for path in before}

    # A touched file is known by its hash, a changed one and a new one are labeled.
    os.utime(photos / "a.png", (1, 1))
    assert label("photos", *WORDS)[1].startswith("0 photos labeled, 3 were there")
    Image.new("RGB", (30, 20), (9, 99, 200)).save(photos / "b" / "a.png")
    Image.new("RGB", (31, 21), (9, 99, 200)).save(photos / "d.png")
    assert label("photos", *WORDS)[1].startswith("2 photos labeled, 2 were there")
    assert read_ids(Path("out/labels/b/a.png")).shape == (20, 30)

    # A label map that is gone is made again.
    Path("out/labels/d.png").unlink()
    assert label("photos", *WORDS)[1].startswith("1 photo labeled, 3 were there")


def test_same_size_and_other_content_is_labeled_again(label: Run, photos: Path):
    Image.fromarray(np.full((20, 30, 3), 7, np.uint8)).save(photos / "a.bmp")
    label("photos", *WORDS)
    hashes = dict(rows("source", "sha256"))
    size = (photos / "a.bmp").stat().st_size
    Image.fromarray(np.full((20, 30, 3), 8, np.uint8)).save(photos / "a.bmp")
    os.utime(photos / "a.bmp", (5, 5))
    assert (photos / "a.bmp").stat().st_size == size
    assert label("photos", *WORDS)[1].startswith("1 photo labeled, 3 were there")
    changed = dict(rows("source", "sha256"))
    assert [name for name in hashes if hashes[name] != changed[name]] == [str(photos / "a.bmp")]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--words", "dog", "grass", "sky"), "words"),
        ((*WORDS, "--background", "auto"), "background"),
        ((*WORDS, "--side-px", "48"), "side_px"),
        ((*WORDS, "--templates", "ensemble"), "templates"),
        ((*WORDS, "--first-id", "1"), "first_id"),
        ((*WORDS, "--min-area", "20"), "min_area"),
        ((*WORDS, "--abstain", "0.5"), "abstain"),
        ((*WORDS, "--model", "pocket"), "model"),
    ],
)
def test_a_change_is_refused_in_one_line_and_redo_makes_it(
    label: Run, photos: Path, loads: list[str], options: tuple[str, ...], named: str
):
    label("photos", *WORDS)
    before = labels()
    loads.clear()
    status, _, error = label("photos", *options)
    assert status == 2
    assert f"out was begun with another {named}: give another --out, or --redo" in error_line(error)
    assert loads == []
    assert labels() == before

    status, out, error = label("photos", *options, "--redo")
    assert (status, error) == (0, "")
    assert out.startswith("3 photos labeled, 0 were there")
    assert label("photos", *options)[1].startswith("0 photos labeled, 3 were there")
    assert "begun with another" in label("photos", *WORDS)[2]


def test_another_model_of_the_same_name_is_refused(
    label: Run, photos: Path, tiny_checkpoint: Path, tiny_vilseg, tiny_tokenizer
):
    from maskfree.hub import checkpoint
    from tiny import tiny_vilseg_config

    label("photos", *WORDS)
    shutil.rmtree(tiny_checkpoint)
    for weight in tiny_vilseg.parameters():
        weight.data *= 1.5
    config = tiny_vilseg_config(vision=None).for_inference()
    about = {"name": "tiny", "templates": ["a photo of a {}"]}
    checkpoint.save(tiny_checkpoint, tiny_vilseg, config, tiny_tokenizer, about)
    shutil.copy(photos / "a.png", photos / "new.png")
    status, _, error = label("photos", *WORDS)
    assert status == 2
    assert "was begun with another weights_sha256" in error_line(error)


def test_batch_size_and_device_may_change(label: Run, photos: Path):
    label("photos", *WORDS)
    shutil.copy(photos / "a.png", photos / "new.png")
    status, out, _ = label("photos", *WORDS, "--batch-size", "1", "--device", "cpu")
    assert (status, out.partition(";")[0]) == (0, "1 photo labeled, 3 were there")


def test_a_kill_at_any_step_loses_nothing_that_was_done(
    label: Run, photos: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    label("photos", *WORDS)
    whole = labels()
    shutil.rmtree("out")
    # The model is loaded once, as its loading is not what is killed here.
    model = loading.load(tiny_checkpoint)
    monkeypatch.setattr(loading, "load", lambda *_: model)

    arguments = ["label", "photos", *WORDS, "--out", "out", "--model", str(tiny_checkpoint)]

    def work() -> None:
        try:
            cli.main([*arguments, "--quiet"])
        except SystemExit as end:
            assert not end.code

    for steps in killed_at_each_step(work):
        kills = steps
        found = labels() if Path("out/labels").exists() else {}
        assert all(whole[name] == content for name, content in found.items()), "half a label map"
        done = []
        if Path("out", MANIFEST).exists() and Path("out", MANIFEST).stat().st_size:
            done = [name for name, state in rows("name", "state") if state == "done"]
        assert {f"{name}.png" for name in done} <= set(found)

        # A new process searches every folder that it writes to for leftovers.
        leftovers._swept.clear()
        status, out, error = label("photos", *WORDS)
        assert (status, error) == (0, "")
        assert f"{len(done)} were there" in out
        assert labels() == whole
        left = [path for path in Path("out").rglob("*") if path.name.startswith(".maskfree")]
        assert left == []
        shutil.rmtree("out")
    assert kills > 15


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_order(
    label: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    write = Store.write

    def stopping(self: Store, row: Any, *more: Any) -> Any:
        if row.name == "b/a":
            os.kill(os.getpid(), number)
        return write(self, row, *more)

    monkeypatch.setattr(Store, "write", stopping)
    status, _, error = label("photos", *WORDS)
    assert status == 128 + number
    assert error.count("\n") == 1
    assert error.startswith(
        f"maskfree: stopped by {number.name}: photos that were labeled are kept; to go on: "
    )
    # What was handed to the writer is finished.
    assert {name for name, state in rows("name", "state") if state == "done"} >= {"a", "b/a"}
    monkeypatch.setattr(Store, "write", write)
    assert label("photos", *WORDS)[0] == 0
    assert len(labels()) == 3


def test_two_runs_at_once_are_refused(label: Run, photos: Path):
    from maskfree.run_dir import held

    with held(Path("out")):
        code = f"from maskfree.cli import main; main({['label', 'photos', *WORDS, '--out', 'out']})"
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "is in use by another run" in error_line(ended.stderr)


def test_photos_that_cannot_be_read_are_named_and_counted(label: Run, photos: Path):
    (photos / "text.jpg").write_text("no photo")
    (photos / "empty.png").touch()
    status, out, error = label("photos", *WORDS)
    assert status == 2
    assert out.startswith("3 photos labeled, 0 were there, 2 could not be labeled; ")
    lines = error.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("maskfree: note: ") for line in lines[:2])
    assert str(photos / "text.jpg") in error
    assert (
        lines[2] == "maskfree: error: 2 photos could not be labeled: out/manifest.sqlite tells why"
    )
    failed = [row for row in rows("name", "state", "error") if row[1] == "failed"]
    assert [name for name, _, _ in failed] == ["empty", "text"]

    # Told again as long as it is so, without labeling; and labeled once it can be read.
    assert label("photos", *WORDS)[0] == 2
    shutil.copy(photos / "a.png", photos / "empty.png")
    (photos / "text.jpg").unlink()
    assert label("photos", *WORDS)[:2][0] == 0


def test_a_photo_that_vanishes_before_it_is_read(
    label: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    listed = labeling.list_photos

    def vanishing(*arguments: Any) -> int:
        run = listed(*arguments)
        (photos / "b" / "c.jpg").unlink()
        return run

    monkeypatch.setattr(labeling, "list_photos", vanishing)
    status, out, error = label("photos", *WORDS)
    assert status == 2
    assert out.startswith("2 photos labeled, 0 were there, 1 could not be labeled; ")
    assert f"there is no file {photos / 'b' / 'c.jpg'}" in error
    monkeypatch.undo()


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(label: Run, photos: Path, largest_file):
    for number in range(12):
        shutil.copy(photos / "a.png", photos / f"{number}.png")
    with largest_file(100_000):
        status, _, error = label("photos", *WORDS)
    assert status == 2
    assert "cannot write out/manifest.sqlite" in error_line(error)
    assert label("photos", *WORDS)[0] == 0
    assert len(labels()) == 15


def test_a_label_map_that_does_not_fit_the_disk_is_named(label: Run, photos: Path, monkeypatch):
    from maskfree.label import store

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.Image.Image, "save", full)
    status, _, error = label("photos", *WORDS)
    assert status == 2
    assert "cannot write out/labels/a.png: No space left on device" in error_line(error)


def test_a_damaged_manifest_is_refused(label: Run, photos: Path):
    label("photos", *WORDS)
    Path("out", MANIFEST).write_bytes(b"no manifest" * 1000)
    status, _, error = label("photos", *WORDS)
    assert status == 2
    assert "out/manifest.sqlite is damaged or no manifest" in error_line(error)
    assert len(labels()) == 3


def test_a_damaged_record_is_refused(label: Run, photos: Path):
    label("photos", *WORDS)
    Path("out/label.json").write_text("[1]")
    assert "is no record of a labeled data set" in error_line(label("photos", *WORDS)[2])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("empty", *WORDS), "there is no photo in empty"),
        (("none", *WORDS), "there is no file or folder 'none'"),
        ((*WORDS,), "no photos were given"),
        (("photos",), "no words were given"),
        (("photos", "--words", "dog", "dog"), "the word 'dog' is repeated"),
        (("photos", "--words", "twice.yaml"), "twice.yaml: the word 'dog' is repeated"),
        (("photos", *WORDS, "--background", "some"), "the background rule 'some' is unknown"),
        (("photos", *WORDS, "--first-id", "2"), "first-id"),
        (("photos", *WORDS, "--abstain", "1.5"), "abstain is 1.5, must be in [0, 1]"),
        (("photos", *WORDS, "--min-area", "-1"), "min_area is -1, must be at least 0"),
        (("photos", *WORDS, "--review", "2"), "review is 2.0, must be in [0, 1]"),
        (("photos", *WORDS, "--model", "nothing"), "nothing"),
        (("photos/a.png", "photos", *WORDS, "--words", "x.txt"), "there is no file x.txt"),
        (("photos", *WORDS, "--format", "coco", "png"), "there is no format 'png': masks, coco, "),
        ((), "out holds no labeled data set"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    label: Run, photos: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice.yaml").write_text("- dog\n- name: cat\n  synonyms: [dog]\n")
    status, _, error = label(*arguments)
    assert status == 2
    assert said in error_line(error)
    assert not (tmp_path / "out").exists()


def test_out_that_cannot_be_a_folder(label: Run, photos: Path, tmp_path: Path):
    (tmp_path / "out").write_text("a file")
    assert "the output out is a file" in error_line(label("photos", *WORDS)[2])
    (tmp_path / "out").unlink()
    (tmp_path / "out").symlink_to("photos")
    assert "lies in the photos' folder" in error_line(label("photos", *WORDS)[2])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a file system of Linux")
def test_out_that_cannot_be_written(label: Run, photos: Path, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["label", "photos", *WORDS, "--out", "/proc/maskfree"])
    assert left.value.code == 2
    assert "/proc/maskfree" in error_line(capsys.readouterr().err)


def test_odd_names_equal_stems_and_shards(label: Run, photos: Path, tmp_path: Path):
    odd = os.fsdecode(b"caf\xe9\n'\"%s.png")
    shutil.copy(photos / "a.png", photos / odd)
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        shard.add(photos / "a.png", "a.png")
        shard.add(photos / "b" / "c.jpg", "x/c.jpg")
    status, out, error = label("photos", "s.tar", photos / "a.png", *WORDS)
    assert (status, error) == (0, ""), error
    # photos/a.png was given twice and is one photo.
    assert out.startswith("6 photos labeled")
    names = {each.name: each for each in labeled()}
    assert set(names) == {"a", "a-2", "b/a", "b/c", "x/c", "caf_udce9_'_%s"}
    np.testing.assert_array_equal(names["a"].labels, names["a-2"].labels)
    assert names["a-2"].path == Path("out/photos/a-2.png")
    assert names["x/c"].path.read_bytes() == (photos / "b" / "c.jpg").read_bytes()
    assert label("photos", "s.tar", *WORDS)[1].startswith("0 photos labeled, 6 were there")


def test_files_of_others_are_not_overwritten(label: Run, photos: Path):
    label("photos", *WORDS)
    Image.new("L", (83, 57), 2).save("out/labels/a.png")
    corrected = Path("out/labels/a.png").read_bytes()
    status, out, error = label("photos", *WORDS, "--redo")
    assert status == 2
    assert out.startswith("2 photos labeled, 0 were there, 1 could not be labeled")
    assert "out/labels/a.png exists and is no result of maskfree" in error
    assert Path("out/labels/a.png").read_bytes() == corrected


def test_photos_of_others_are_not_overwritten_by_those_of_a_shard(
    label: Run, photos: Path, tmp_path: Path
):
    own = tmp_path / "out" / "photos" / "a.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"a photo of somebody")
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        shard.add(photos / "a.png", "a.png")
        shard.add(photos / "b" / "c.jpg", "c.jpg")
    status, _, error = label("s.tar", *WORDS)
    assert (status, own.read_bytes()) == (2, b"a photo of somebody")
    assert "out/photos/a.png exists" in error
    assert [each.name for each in labeled()] == ["c"]

    # Once it is moved away the shard's photo is taken; its own copies are replaced.
    own.unlink()
    assert label("s.tar", *WORDS, "--redo")[0] == 0
    assert label("s.tar", *WORDS, "--redo")[0] == 0
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        shard.add(photos / "b" / "a.png", "a.png")
    assert label("s.tar", *WORDS)[0] == 0
    assert own.read_bytes() == (photos / "b" / "a.png").read_bytes()


def test_first_id_and_background_decide_the_ids(label: Run, photos: Path):
    background = ("--background", "words:wall,floor")
    label("photos", *WORDS, *background)
    zero = {each.name: each.labels for each in labeled()}
    shutil.rmtree("out")
    label("photos", *WORDS, *background, "--first-id", "1")
    for each in labeled():
        np.testing.assert_array_equal(each.labels, np.array([1, 2, 3, 0])[zero[each.name]])
    assert Path("out/classes.txt").read_text() == "background\ndog\ngrass/lawn\nsky\n"


def test_abstaining_leaves_pixels_without_a_label(label: Run, photos: Path, tiny_checkpoint: Path):
    segmenter = loading.load(tiny_checkpoint).with_words(["dog", "grass/lawn", "sky"])
    result = segmenter(photos / "a.png")
    values = np.unique(result.confidence)
    level = float(values[len(values) // 2])
    label("photos", *WORDS, "--abstain", level)
    found = next(each for each in labeled() if each.name == "a")
    expected = np.where(result.confidence < level, 255, result.labels)
    np.testing.assert_array_equal(found.labels, expected)
    assert 0 < (found.labels == 255).mean() < 1
    [unlabeled] = [value for name, value in rows("name", "unlabeled") if name == "a"]
    assert unlabeled == pytest.approx((expected == 255).mean())


def test_the_least_certain_photos_are_listed_and_copied(label: Run, photos: Path, tmp_path: Path):
    label("photos", *WORDS, "--review", "0.5")
    order = sorted(rows("confidence", "name", "source"))
    listed = [line.split("\t") for line in Path("out/review.txt").read_text().splitlines()]
    assert [(name, source) for _, name, source in listed] == [row[1:] for row in order[:2]]

    status, out, error = label("--review", "0.5", "--copy-review", "to check")
    assert (status, error) == (0, "")
    assert "copied for review: 2 photos -> to check" in out
    stems = {row[1].replace("/", "__") for row in order[:2]}
    assert {path.stem for path in Path("to check/images").iterdir()} == stems
    assert {path.stem for path in Path("to check/labels").iterdir()} == stems
    # What was copied may have been corrected since.
    assert "to check exists" in error_line(label("--copy-review", "to check")[2])


def test_formats_are_written_of_finished_labels_without_the_network(
    label: Run, photos: Path, loads: list[str], tmp_path: Path
):
    label("photos", *WORDS, "--format", "masks")
    assert {path.stem for path in Path("out/masks").rglob("c.*")} == {"c"}
    loads.clear()
    status, out, error = label("--format", "coco", "yolo")
    assert (status, error, loads) == (0, "", [])
    assert "  coco: 3 photos -> out/coco\n  yolo: 3 photos -> out/yolo\n" in out
    assert len(list(Path("out/yolo").rglob("*.txt"))) >= 3

    # New photos come in, photos that are gone are left out and said.
    shutil.copy(photos / "a.png", photos / "d.png")
    (photos / "b" / "c.jpg").unlink()
    status, out, error = label("photos", *WORDS, "--format", "coco")
    assert "  coco: 3 photos" in out
    assert error.startswith("maskfree: note: left out of coco: ")
    assert error.count("\n") == 1

    # What somebody put there is not overwritten, and known before any work.
    Path("out/coco/mine.txt").write_text("mine")
    loads.clear()
    shutil.copy(photos / "a.png", photos / "e.png")
    status, _, error = label("photos", *WORDS, "--format", "coco")
    assert (status, loads) == (2, [])
    assert "was not written by maskfree" in error_line(error)


def test_words_file_and_its_background_rule(label: Run, photos: Path, tmp_path: Path):
    (tmp_path / "words.yaml").write_text(
        "background: words:wall\nwords:\n  - {name: dog, id: 5, color: '#010203'}\n"
        "  - {name: sky, id: 300}\n"
    )
    assert label("photos", "--words", "words.yaml")[0] == 0
    assert {each.labels.dtype for each in labeled()} == {np.dtype(np.uint16)}
    assert set(np.unique(np.concatenate([each.labels.ravel() for each in labeled()]))) <= {
        0,
        5,
        300,
    }
    record = json.loads(Path("out/label.json").read_text())
    assert record["asked"]["background"] == "words:wall"
    assert record["asked"]["words_sha256"] == words_sha256(classes_of(record))
    assert record["asked"]["classes"]["dog"] == {"id": 5, "color": [1, 2, 3]}


def test_two_processes_share_the_photos(
    photos: Path, tmp_path: Path, tiny_checkpoint: Path, label: Run
):
    for number in range(7):
        shutil.copy(photos / "a.png", photos / f"{number}.png")
    label("photos", *WORDS)
    alone = labels()
    shutil.rmtree("out")

    # Each process notes the photos that it opens.
    (tmp_path / "noting.py").write_text(
        "import os\n"
        "from maskfree.cli import main\n"
        "from maskfree.label import run\n"
        "opened = run.open_row\n"
        "def noted(row):\n"
        "    with open(f'opened-{os.environ[\"RANK\"]}', 'a') as file:\n"
        "        file.write(row.name + '\\n')\n"
        "    return opened(row)\n"
        "run.open_row = noted\n"
        f"main({['label', 'photos', *WORDS, '--out', 'out', '--model', str(tiny_checkpoint)]})\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*command, "noting.py"], capture_output=True, text=True, cwd=tmp_path, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("10 photos labeled, 0 were there; ")
    assert ended.stdout.count(" labeled, ") == ended.stdout.count("to review") == 1
    parts = [(tmp_path / f"opened-{rank}").read_text().split("\n")[:-1] for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(name.removesuffix(".png") for name in alone)
    assert {len(part) for part in parts} == {5}
    assert labels() == alone


def test_processes_on_several_machines_are_refused(
    label: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "run on one machine" in error_line(label("photos", *WORDS)[2])
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert "are started by torchrun" in error_line(label("photos", *WORDS)[2])

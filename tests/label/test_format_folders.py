"""The folder of a format: whole or not there, never over others' files; photos linked or copied."""

from __future__ import annotations

import gc
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from label.labeled_photos import CLASSES, labeled_photo, with_regions
from maskfree.label.formats.registry import write_format
from maskfree.label.labeled import LabeledPhoto


@pytest.fixture
def photos(tmp_path: Path) -> list[LabeledPhoto]:
    names = ["one", "sub/two", "sub/deeper/three"]
    # JPEG, PNG and BMP.
    return [labeled_photo(tmp_path / "photos", name, number) for number, name in enumerate(names)]


def test_an_unknown_format_is_named_with_those_that_exist(tmp_path: Path):
    with pytest.raises(ValueError, match="no format 'coc': masks, coco, "):
        write_format("coc", CLASSES, [], tmp_path / "out")


def test_a_folder_is_replaced_by_a_rerun_with_other_photos(
    tmp_path: Path, photos: list[LabeledPhoto]
):
    out = tmp_path / "out"
    write_format("yolo", CLASSES, photos, out)
    write_format("yolo", CLASSES, photos[:1], out)

    assert len(list((out / "images").rglob("*.*"))) == 1
    # Nothing is left beside it.
    assert {path.name for path in tmp_path.iterdir()} == {"out", "photos"}


@pytest.mark.parametrize("name", ["notes.txt", "zz/notes.txt", "labels/train/.notes", "0"])
def test_files_of_others_are_never_removed(tmp_path: Path, photos: list[LabeledPhoto], name: str):
    out = tmp_path / "out"
    write_format("yolo", CLASSES, photos, out)
    (out / name).parent.mkdir(exist_ok=True, parents=True)
    (out / name).write_text("mine")

    with pytest.raises(FileExistsError, match=rf"{name} was not written by maskfree"):
        write_format("yolo", CLASSES, photos, out)
    assert (out / name).read_text() == "mine"


def test_a_corrected_label_is_never_replaced(tmp_path: Path, photos: list[LabeledPhoto]):
    out = tmp_path / "out"
    write_format("labelme", CLASSES, photos, out)
    corrected = out / "sub" / "two.json"
    text = corrected.read_text(encoding="utf-8").replace("sky", "sea")
    corrected.write_text(text, encoding="utf-8")

    with pytest.raises(FileExistsError, match=r"two\.json was not written .* or was changed"):
        write_format("labelme", CLASSES, photos, out)
    assert corrected.read_text(encoding="utf-8") == text


def test_removed_files_are_no_reason_to_stop(tmp_path: Path, photos: list[LabeledPhoto]):
    out = tmp_path / "out"
    write_format("labelme", CLASSES, photos, out)
    (out / "one.json").unlink()
    shutil.rmtree(out / "sub")
    write_format("labelme", CLASSES, photos, out)
    assert (out / "one.json").is_file()


def test_a_folder_of_others_is_refused_and_an_empty_one_taken(
    tmp_path: Path, photos: list[LabeledPhoto]
):
    with pytest.raises(FileExistsError, match="not of maskfree"):
        write_format("coco", CLASSES, photos, tmp_path / "photos")
    assert photos[0].path.is_file()

    with pytest.raises(FileExistsError, match="is no folder"):
        write_format("coco", CLASSES, photos, photos[0].path)

    (tmp_path / "empty").mkdir()
    write_format("coco", CLASSES, photos, tmp_path / "empty")
    assert (tmp_path / "empty" / "annotations").is_dir()


def test_an_error_on_the_way_leaves_the_old_folder(tmp_path: Path, photos: list[LabeledPhoto]):
    out = tmp_path / "out"
    write_format("coco", CLASSES, photos[:1], out)

    def failing() -> Iterator[LabeledPhoto]:
        yield photos[1]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write .*out: No space left"):
        write_format("coco", CLASSES, failing(), out)
    assert [path.name for path in (out / "images").iterdir()] == ["one.jpg"]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "photos"}


def test_photos_that_are_gone_or_changed_are_left_out_and_named(
    tmp_path: Path, photos: list[LabeledPhoto]
):
    photos[0].path.unlink()
    Image.new("RGB", (5, 4)).save(photos[1].path)

    written = write_format("coco", CLASSES, photos, tmp_path / "out")
    assert (written.num_photos, written.num_left_out) == (1, 2)
    assert "one.jpg" in written.reasons[0]
    assert "two.png has 5x4 pixels, and had 63x48" in written.reasons[1]


def test_without_any_photo_the_old_folder_stays(tmp_path: Path, photos: list[LabeledPhoto]):
    write_format("yolo", CLASSES, photos, tmp_path / "out", linking="copy")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")

    with pytest.raises(FileNotFoundError, match="no photo of 3 is there: there is no file"):
        write_format("yolo", CLASSES, photos, tmp_path / "out", linking="copy")
    assert len(list((tmp_path / "out" / "images").rglob("*.*"))) == 3


def test_hard_links_outlive_the_move_of_the_folder_and_of_the_photos(
    tmp_path: Path, photos: list[LabeledPhoto]
):
    write_format("coco", CLASSES, photos, tmp_path / "out")
    linked = tmp_path / "out" / "images" / "one.jpg"
    assert linked.samefile(photos[0].path)

    content = photos[0].path.read_bytes()
    (tmp_path / "out").rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "photos")
    assert (tmp_path / "moved" / "images" / "one.jpg").read_bytes() == content

    # The last name of a photo is never removed by a rerun.
    with pytest.raises(FileExistsError, match=r"images/one\.jpg was not written"):
        write_format("coco", CLASSES, [], tmp_path / "moved")


def test_photos_are_linked_by_name_or_copied_if_asked(tmp_path: Path, photos: list[LabeledPhoto]):
    write_format("coco", CLASSES, photos, tmp_path / "symbolic", linking="symbolic")
    linked = tmp_path / "symbolic" / "images" / "one.jpg"
    assert linked.readlink() == photos[0].path

    write_format("coco", CLASSES, photos, tmp_path / "copy", linking="copy")
    copied = tmp_path / "copy" / "images" / "one.jpg"
    assert copied.stat().st_nlink == 1
    assert copied.read_bytes() == photos[0].path.read_bytes()


def test_without_hard_links_photos_are_copied(
    tmp_path: Path, photos: list[LabeledPhoto], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    write_format("coco", CLASSES, photos, tmp_path / "out")
    copied = tmp_path / "out" / "images" / "one.jpg"
    assert copied.stat().st_nlink == 1
    assert copied.read_bytes() == photos[0].path.read_bytes()


def test_a_cut_off_jpeg_is_copied_since_trainers_repair_it_in_place(
    tmp_path: Path, photos: list[LabeledPhoto]
):
    photos[0].path.write_bytes(photos[0].path.read_bytes()[:-2])
    write_format("yolo", CLASSES, photos, tmp_path / "out")
    [copied] = (tmp_path / "out" / "images").rglob("one.jpg")
    assert not copied.samefile(photos[0].path)


def test_two_photos_of_one_name_in_a_format_are_refused(tmp_path: Path):
    twice = [labeled_photo(tmp_path / "photos", name, 0) for name in ("a b", "a%20b")]
    with pytest.raises(FileExistsError, match=r"has the name a%20b\.jpg of another photo"):
        write_format("voc", CLASSES, twice, tmp_path / "out")


@pytest.mark.parametrize("name", ["coco", "yolo", "cvat", "label-studio", "huggingface"])
def test_memory_does_not_grow_with_the_photos(tmp_path: Path, name: str):
    labels = np.zeros((120, 160), np.uint8)
    labels[10:50, 20:90] = CLASSES[0].id
    Image.new("RGB", (160, 120)).save(tmp_path / "photo.jpg")

    def many(count: int) -> Iterator[LabeledPhoto]:
        for number in range(count):
            yield with_regions(tmp_path / "photo.jpg", f"{number}", labels.copy(), CLASSES)

    # What the first run keeps (modules, caches) is not counted.
    write_format(name, CLASSES, many(2), tmp_path / "first")
    few = traced_peak(lambda: write_format(name, CLASSES, many(5), tmp_path / "few"))
    # The least of three, since other tests' garbage and first imports count too.
    more = min(
        traced_peak(lambda: write_format(name, CLASSES, many(50), tmp_path / "more"))
        for _ in range(3)
    )
    assert more < few + 2**17


def traced_peak(act: Callable[[], object]) -> int:
    """Most bytes that Python and numpy held while a function ran."""
    gc.collect()
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

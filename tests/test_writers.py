"""Each result is whole or not there: after a kill between any two steps on the disk, and after an
error of the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluate.result_rows import ROW
from kills import killed_at_each_step
from maskfree.data import shapes
from maskfree.data.benchmarks.catalog import AnnotatedPhoto, files_sha256
from maskfree.data.cache.prototypes import Prototypes
from maskfree.data.cache.region_preparation import SegmentPreparation
from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.data.clip_files import write_clip
from maskfree.data.order import seed_of
from maskfree.distillation.pseudo_labels import link
from maskfree.engine import run_state
from maskfree.evaluation.reporting import charts
from maskfree.evaluation.reporting.results import write_row, write_sweep
from maskfree.files.leftovers import remove_leftovers
from maskfree.inference.contact_sheet import draw_contact_sheet
from maskfree.inference.search import Hit
from maskfree.inference.tracking import save_clip
from maskfree.progress import unwatched
from maskfree.results.segmentation import Segmentation

Write = Callable[[Path, int], object]
SIZE = (24, 16)


def picture(version: int) -> Image.Image:
    return Image.new("RGB", SIZE, (90 * version, 50, 20))


def result(version: int) -> Segmentation:
    labels = np.full((SIZE[1], SIZE[0]), version, np.uint8)
    record = {
        "photo": {"name": "a"},
        "words": [["x"], ["y"], ["z"]],
        "background": None,
        "ids": [0, 1, 2],
    }
    record |= {"tracking": {}}
    return Segmentation(
        labels, ("x", "y", "z"), np.ones(labels.shape, np.float16), np.asarray(picture(0)), record
    )


def contact_sheet(folder: Path, version: int) -> None:
    photo = folder.parent / "photo.png"
    if not photo.exists():
        picture(0).save(photo)
    mask = np.ones((2, 2), bool)
    draw_contact_sheet([Hit(photo, (0, 0, 9, 9), version / 10, 1.0, mask)], folder / "sheet.png")


def region_maps(folder: Path, version: int) -> None:
    """The map that is there is kept: the summary is what changes."""
    photos = folder.parent / "photos"
    if not photos.exists():
        photos.mkdir()
        picture(0).save(photos / "a.png")
    if (folder / "a.png").exists() and version == 2:
        (folder / "a.png").unlink()
    work = SegmentPreparation((str(photos),), folder, {"seed": 1}, workers=1)
    work.run(lambda photo: np.zeros(photo.shape[:2], np.uint8), unwatched)


def unit(version: int) -> torch.Tensor:
    return torch.full((3, 2), float(version))


WRITERS: dict[str, Write] = {
    "segmentation": lambda folder, version: result(version).save(folder, "a"),
    "clip": lambda folder, version: list(save_clip([result(version)], folder)),
    "webp": lambda folder, version: write_clip([picture(version)] * 2, folder / "a.webp", 5),
    "gif": lambda folder, version: write_clip([picture(version)] * 2, folder / "a.gif", 5),
    "mp4": lambda folder, version: write_clip([picture(version)] * 2, folder / "a.mp4", 5),
    "row": lambda folder, version: write_row(replace(ROW, mean_iou=version / 10), folder),
    "sweep": lambda folder, version: write_sweep([replace(ROW, mean_iou=version / 10)], folder),
    "chart": lambda folder, version: charts.class_bars(
        {"dog": version / 10}, "x", folder / "a.svg"
    ),
    "sheet": contact_sheet,
    "prototypes": lambda folder, version: Prototypes(
        ("a",), *(unit(version) for _ in range(3))
    ).write(folder / "a.safetensors"),
    "teacher": lambda folder, version: TeacherMaps(folder).write("a", unit(version)[..., None]),
    "record": lambda folder, version: run_state.write_record(folder, f"{version}", {}, 1),
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is no leftover."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    return {
        name: path.read_bytes()
        for path, name in names.items()
        if not name.split("/")[-1].startswith(".maskfree-") and not name.startswith(".maskfree-")
    }


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".maskfree-*"))


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Write:
    if request.param == "mp4":
        pytest.importorskip("av", reason="the extra 'video' is not installed")
    return WRITERS[request.param]


def written(folder: Path, write: Write, version: int) -> dict[str, bytes]:
    write(folder, version)
    return contents(folder)


def test_a_result_is_the_old_or_the_new_one_whenever_a_run_is_killed(tmp_path: Path, write: Write):
    old, new = (written(tmp_path / f"{version}", write, version) for version in (1, 2))
    assert old.keys() == new.keys() and (old != new or "run.json" in old)
    folder = tmp_path / "1"
    for _ in killed_at_each_step(lambda: write(folder, 2)):
        found = contents(folder)
        assert found.keys() == old.keys()
        if "run.json" in old:  # which notes when the run was
            json.loads(found["run.json"])
        else:
            assert all(found[name] in (old[name], new[name]) for name in old)
        for place in {path.parent for path in leftovers(folder)}:
            remove_leftovers(place)
        assert not leftovers(folder)
        write(folder, 1)


def test_an_error_of_the_disk_keeps_the_old_result_and_names_it(
    tmp_path: Path, write: Write, largest_file
):
    folder = tmp_path / "out"
    old = written(folder, write, 1)
    with (
        largest_file(20),
        pytest.raises(OSError, match=f"^cannot write {folder}/.*: File too large$"),
    ):
        write(folder, 2)
    assert contents(folder) == old and not leftovers(folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, write: Write):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=f"{tmp_path}/file"):
        write(tmp_path / "file" / "out", 1)
    assert (tmp_path / "file").read_text() == "mine"


def test_names_that_are_no_utf_8_can_be_learned_from(tmp_path: Path):
    """Their bytes are spelled out in the names of what is made of them.

    Their order is one of their own.
    """
    photo = tmp_path / os.fsdecode(b"caf\xe9.png")
    picture(0).save(photo)
    (place,) = link([photo], tmp_path / "photos")
    assert place.name == r"000000-caf\udce9.png" and place.resolve() == photo
    maps = TeacherMaps(tmp_path / "maps")
    maps.write(str(photo), unit(1)[..., None])
    assert maps.of(str(photo)).shape == (3, 2, 1)
    assert seed_of(1, str(photo)) != seed_of(1, str(tmp_path / "caf.png"))
    samples = [
        AnnotatedPhoto(str(path), path, lambda: np.zeros((1, 1), np.uint8))
        for path in (photo, place)
    ]
    assert len({files_sha256((sample,)) for sample in samples}) == 2


def test_drawn_data_are_whole_or_not_there(tmp_path: Path):
    whole = None
    for _ in killed_at_each_step(lambda: shapes.write(tmp_path / "data", 3)):
        found = contents(tmp_path / "data")
        whole = whole or found
        assert found == (whole if found else {})
        assert not found or set(found) == {
            *(f"shapes-00{i}.tar" for i in range(3)),
            "tokenizer.json",
        }
        remove_leftovers(tmp_path)
        assert not leftovers(tmp_path)
    assert whole


def test_region_maps_are_whole_or_not_there(tmp_path: Path):
    folder = tmp_path / "out"
    region_maps(folder, 1)
    old = contents(folder)["a.png"]
    for _ in killed_at_each_step(lambda: region_maps(folder, 2)):
        found = contents(folder)
        assert found.get("a.png", old) == old
        json.loads(found["segments.json"])
        remove_leftovers(folder)
        region_maps(folder, 1)
        assert contents(folder)["a.png"] == old and not leftovers(folder)

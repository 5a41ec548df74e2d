"""What a teacher sees in photos, written down: the embeddings themselves, going on after a stop,
bad input.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from maskfree.data.cache.teacher_maps import RECORD, TeacherMaps
from maskfree.data.photo_sources import read_sources
from maskfree.distillation.teacher_features import TeacherCounts, prepare_teacher
from maskfree.hub import loading
from maskfree.inference.config import MAX_LONG_PX
from maskfree.inference.features import embed
from maskfree.inference.segmenter import Segmenter

SIZES = {"a": (83, 57), "b": (40, 90), "c": (1, 1), "d": (3000, 4)}
Photo = Callable[..., Image.Image]


@pytest.fixture
def photos(tmp_path: Path, photo: Photo) -> Path:
    """A folder of photos of very different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in SIZES.items():
        photo(size).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def teacher(tiny_checkpoint: Path) -> Segmenter:
    segmenter = loading.load(tiny_checkpoint)
    return segmenter.with_inference(replace(segmenter.inference, side_px=48))


def test_maps_are_what_the_teacher_sees_of_each_photo(
    tmp_path: Path, teacher: Segmenter, photos: Path
):
    assert prepare_teacher(teacher, [str(photos)], tmp_path / "maps") == TeacherCounts(4, 0, 0)
    maps = TeacherMaps(tmp_path / "maps")
    # rows and columns of whole patches of 16 px; "d" is cut down by its longer side, to 3 x 2048
    for name, patches in {"a": (3, 4), "b": (6, 3), "c": (3, 3), "d": (1, 128)}.items():
        read = maps.of(f"{name}.png").float()
        assert read.shape == (18, *patches)
        expected = embed(teacher, Image.open(photos / f"{name}.png").convert("RGB")).at(*patches)
        assert_close(read, expected, atol=2e-3, rtol=0)  # half precision
    assert maps.of("a").float().var(dim=(1, 2)).sum() > 0.01  # or any map would do


def test_a_stopped_run_goes_on_and_leaves_what_is_there(
    tmp_path: Path, teacher: Segmenter, photos: Path
):
    def stopping(examples: Iterable, name: str = "", total: int | None = None) -> Iterable:
        for number, example in enumerate(examples):
            if number == 2:
                raise KeyboardInterrupt
            yield example

    with pytest.raises(KeyboardInterrupt):
        prepare_teacher(teacher, [str(photos)], tmp_path / "maps", stopping)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").iterdir()}
    assert len(first) == 3  # two maps and the record
    assert prepare_teacher(teacher, [str(photos)], tmp_path / "maps") == TeacherCounts(2, 2, 0)
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())
    prepare_teacher(teacher, [str(photos)], tmp_path / "whole")
    for name in SIZES:
        assert (tmp_path / "maps" / f"{name}.safetensors").read_bytes() == (
            tmp_path / "whole" / f"{name}.safetensors"
        ).read_bytes()


def test_maps_of_8_bits_are_recorded_and_not_mixed(
    tmp_path: Path, teacher: Segmenter, photos: Path
):
    prepare_teacher(teacher, [str(photos)], tmp_path / "whole")
    prepare_teacher(teacher, [str(photos)], tmp_path / "maps", storage="int8")
    for one, other in zip(
        TeacherMaps(tmp_path / "maps").all(), TeacherMaps(tmp_path / "whole").all(), strict=True
    ):
        torch.testing.assert_close(one.float(), other.float(), atol=0.02, rtol=0)
    # A folder of an older version, whose record has no storage, goes on.
    record = json.loads((tmp_path / "whole" / RECORD).read_text())
    del record["storage"]
    (tmp_path / "whole" / RECORD).write_text(json.dumps(record))
    assert prepare_teacher(teacher, [str(photos)], tmp_path / "whole").kept == 4
    with pytest.raises(ValueError, match="was begun with another storage"):
        prepare_teacher(teacher, [str(photos)], tmp_path / "maps")


def test_maps_of_another_teacher_are_not_added_to(tmp_path: Path, teacher: Segmenter, photos: Path):
    prepare_teacher(teacher, [str(photos)], tmp_path / "maps")
    other = replace(teacher, weights_hash="another")
    with pytest.raises(ValueError, match=r"was begun with another weights_sha256"):
        prepare_teacher(other, [str(photos)], tmp_path / "maps")
    larger = teacher.with_inference(replace(teacher.inference, side_px=64))
    with pytest.raises(ValueError, match=r"with another inference\.side_px"):
        prepare_teacher(larger, [str(photos)], tmp_path / "maps")
    smoother = teacher.with_inference(
        replace(teacher.inference, smooth=3, class_prior=1.0)
    )  # which maps do not see
    assert prepare_teacher(smoother, [str(photos)], tmp_path / "maps") == TeacherCounts(0, 4, 0)
    (tmp_path / "maps" / "teacher.json").write_text("{")
    with pytest.raises(ValueError, match=r"teacher\.json is no JSON"):
        prepare_teacher(teacher, [str(photos)], tmp_path / "maps")


def test_broken_photos_are_left_out(
    tmp_path: Path, teacher: Segmenter, photos: Path, caplog: pytest.LogCaptureFixture
):
    (photos / "b.png").write_bytes(b"no photo")
    assert prepare_teacher(teacher, [str(photos)], tmp_path / "maps") == TeacherCounts(3, 0, 1)
    assert "b.png" in caplog.text and not TeacherMaps(tmp_path / "maps").path("b.png").exists()
    for name in SIZES:
        (photos / f"{name}.png").write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"no photo of .* can be read"):
        prepare_teacher(teacher, [str(photos)], tmp_path / "none")


def test_two_photos_of_one_stem_are_refused(
    tmp_path: Path, teacher: Segmenter, photos: Path, photo: Photo
):
    (photos / "within").mkdir()
    photo((20, 30)).save(photos / "within" / "b.jpg")
    with pytest.raises(ValueError, match="two photos have the stem 'b'"):
        prepare_teacher(teacher, [str(photos)], tmp_path / "maps")


def test_no_photos_are_an_error(tmp_path: Path, teacher: Segmenter):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no photo"):
        prepare_teacher(teacher, [str(tmp_path / "empty")], tmp_path / "maps")
    with pytest.raises(FileNotFoundError, match="no shard"):
        prepare_teacher(teacher, [str(tmp_path / "nowhere")], tmp_path / "maps")
    with pytest.raises(ValueError, match="no photos were given"):
        prepare_teacher(teacher, [], tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_photos_of_shards_have_their_keys(tmp_path: Path, teacher: Segmenter, photos: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for key, content in (("07.jpg", (photos / "a.png").read_bytes()), ("07.txt", b"a dog")):
            info = tarfile.TarInfo(key)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    sources = [str(tmp_path / "a.tar")]
    assert prepare_teacher(teacher, sources, tmp_path / "maps") == TeacherCounts(1, 0, 0)
    prepare_teacher(teacher, [str(photos)], tmp_path / "same")
    example = next(iter(read_sources(sources)))
    assert torch.equal(
        TeacherMaps(tmp_path / "maps").of(example.key), TeacherMaps(tmp_path / "same").of("a")
    )
    with pytest.raises(ValueError, match="take one kind"):
        prepare_teacher(teacher, [*sources, str(photos)], tmp_path / "both")


def test_the_record_names_the_teacher(tmp_path: Path, teacher: Segmenter, photos: Path):
    prepare_teacher(teacher, [str(photos)], tmp_path / "maps")
    record = json.loads((tmp_path / "maps" / "teacher.json").read_text())
    assert record == {
        "model": "tiny",
        "weights_sha256": teacher.weights_hash,
        "inference": {"side_px": 48, "max_long_px": MAX_LONG_PX},
        "storage": None,
    }

"""A teacher's maps in a folder."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.cache.teacher_maps import TeacherMaps


def embeddings(rows: int = 4, columns: int = 7) -> torch.Tensor:
    return F.normalize(torch.randn(5, rows, columns), dim=0)


def test_a_map_comes_back_in_half_precision_by_its_photos_key(tmp_path):
    maps, seen = TeacherMaps(tmp_path / "new"), embeddings()
    maps.write("train/000.jpg", seen)
    assert maps.path("elsewhere/000.png") == tmp_path / "new" / "000.safetensors"
    assert maps.of("000").dtype == torch.float16
    assert_close(maps.of("000").float(), seen, atol=1e-3, rtol=0)
    assert maps.of("000").shape == (5, 4, 7)


def test_a_map_is_replaced(tmp_path):
    maps = TeacherMaps(tmp_path)
    for seen in (embeddings(), embeddings(2, 3)):
        maps.write("k", seen)
        assert_close(maps.of("k").float(), seen, atol=1e-3, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["k.safetensors"]


def test_maps_of_8_bits_take_half_the_room_and_keep_the_directions(tmp_path):
    whole, small = TeacherMaps(tmp_path / "whole"), TeacherMaps(tmp_path / "small")
    seen = F.normalize(torch.randn(512, 9, 13), dim=0)
    seen[:, 2, 3] = 0
    whole.write("k", seen)
    small.write("k", seen, "int8")
    assert small.path("k").stat().st_size < 0.52 * whole.path("k").stat().st_size
    read = small.of("k")
    assert read.dtype == torch.float16 and read.shape == seen.shape
    cosines = F.cosine_similarity(read.float(), seen, dim=0)
    assert cosines[seen.any(0)].min() > 0.9998
    assert not read[:, 2, 3].any()
    assert_close(read.float().norm(dim=0)[seen.any(0)], torch.ones(9 * 13 - 1), atol=1e-3, rtol=0)


def test_all_maps_come_in_the_order_of_their_names(tmp_path):
    maps = TeacherMaps(tmp_path)
    for index, key in enumerate(("b", "a", "c")):
        maps.write(key, embeddings(1 + index, 2))
    (tmp_path / "teacher.json").write_text("{}")
    assert [each.shape[1] for each in maps.all()] == [2, 1, 3]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"k\.safetensors is missing: `maskfree prepare teacher`"
    ):
        TeacherMaps(tmp_path).of("k")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="holds no teacher's maps"):
            list(TeacherMaps(folder).all())


@pytest.mark.parametrize("content", [b"", b"junk" * 50, "cut"])
def test_damaged_maps_are_named(tmp_path, content):
    maps = TeacherMaps(tmp_path)
    maps.write("k", embeddings())
    path = maps.path("k")
    path.write_bytes(path.read_bytes()[:-9] if content == "cut" else content)
    for read in (lambda: maps.of("k"), lambda: list(maps.all())):
        with pytest.raises(ValueError, match=r"k\.safetensors is .*damaged") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tensors",
    [
        {"other": torch.rand(2, 3, 4)},
        {"embeddings": torch.rand(3, 4)},
        {"embeddings": torch.rand(0, 3, 4)},
        {"embeddings": torch.ones(2, 3, 4, dtype=torch.int8)},
        {"embeddings": torch.ones(2, 3, 4, dtype=torch.int8), "scales": torch.ones(3, 2)},
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path, tensors):
    save_file(tensors, tmp_path / "k.safetensors")
    with pytest.raises(ValueError, match="holds no teacher's map"):
        TeacherMaps(tmp_path).of("k")


def test_a_map_of_another_photos_shape_is_refused(tmp_path):
    maps = TeacherMaps(tmp_path)
    maps.write("wide", torch.ones(3, 20, 40))
    assert maps.of("wide", (227, 450)).shape == (3, 20, 40)
    with pytest.raises(
        ValueError, match="40x20 patches, its photo 450x300 px: it is another photo's"
    ):
        maps.of("wide", (300, 450))

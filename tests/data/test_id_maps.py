"""Maps of ids are read as they are stored, in every place that reads one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_files import gray_png, png
from PIL import Image

from maskfree.data.benchmarks.davis import read_objects
from maskfree.data.benchmarks.index_maps import IndexMaps, Truth
from maskfree.data.cache.region_maps import SegmentMaps
from maskfree.data.decoding import MAX_PIXELS
from maskfree.data.id_maps import read_ids


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_ids_of_few_bits_are_as_stored_everywhere(tmp_path: Path, bits: int, palette: bool):
    ids = np.arange(15).reshape(3, 5) % min(2**bits, 15)
    for folder in ("labels", "images"):
        (tmp_path / folder).mkdir()
    (tmp_path / "labels" / "a.png").write_bytes(gray_png(ids, bits, palette=palette))
    Image.new("RGB", (5, 3)).save(tmp_path / "images" / "a.png")
    path = tmp_path / "labels" / "a.png"
    [sample] = IndexMaps(truths=(Truth(ids={i: i for i in range(15)}),)).samples(
        tmp_path, tuple("abcdefghijklmno"), 0
    )
    for found in (
        read_ids(path),
        read_objects(path),
        sample.read_truth(),
        SegmentMaps(path.parent).of("a"),
    ):
        assert found.tolist() == ids.tolist()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_a_tiff_of_ids_is_as_stored(tmp_path: Path, mode: str, compression: str):
    ids = np.array([[0, 1, 0], [1, 1, 0]]) * (1 if mode == "1" else 200 if mode != "I;16" else 459)
    image = Image.fromarray(
        ids.astype(bool if mode == "1" else np.uint16 if mode == "I;16" else np.uint8)
    )
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "a.tif", compression=compression)
    assert read_ids(tmp_path / "a.tif").tolist() == ids.tolist()


def test_ids_of_16_bits_name_classes_of_a_benchmark(tmp_path: Path):
    for folder in ("labels", "images"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.array([[0, 459, 7]], np.uint16)).save(tmp_path / "labels" / "a.png")
    Image.new("RGB", (3, 1)).save(tmp_path / "images" / "a.png")
    layout = IndexMaps(truths=(Truth(ids={0: 0, 7: 1, 459: 2}),))
    [sample] = layout.samples(tmp_path, ("x", "y", "z"), 0)
    assert sample.read_truth().tolist() == [[0, 2, 1]]


def test_a_map_with_an_orientation_is_read_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    ids = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    Image.fromarray(ids).save(tmp_path / "a.png", exif=exif)
    assert read_ids(tmp_path / "a.png").tolist() == np.rot90(ids, -1).tolist()


def test_what_holds_no_ids_is_refused_in_one_line(tmp_path: Path):
    side = int(MAX_PIXELS**0.5) + 1
    (tmp_path / "large.png").write_bytes(png((side, side), 1, 0, b""))
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (4, 3)).save(tmp_path / "lossy.jpg")
    Image.new("RGB", (4, 3), (9, 9, 9)).save(tmp_path / "colors.png")
    Image.new("LA", (4, 3), (9, 9)).save(tmp_path / "layers.png")
    Image.new("F", (4, 3)).save(tmp_path / "floats.tif")
    Image.fromarray(np.array([[-1]], np.int32)).save(tmp_path / "negative.tif")
    Image.new("1", (4, 3)).save(tmp_path / "white.tif", tiffinfo={262: 0})
    for name, reason in (
        ("large.png", f"{side}x{side} pixels"),
        ("text.png", "is not an image"),
        ("lossy.jpg", "JPEG, which does not keep ids"),
        ("colors.png", "mode RGB"),
        ("layers.png", "mode LA"),
        ("floats.tif", "mode F"),
        ("negative.tif", "holds -1"),
        ("white.tif", "0 is white"),
    ):
        with pytest.raises(ValueError, match=reason) as raised:
            read_ids(tmp_path / name)
        assert name in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(FileNotFoundError, match="there is no index map"):
        read_ids(tmp_path / "absent.png")

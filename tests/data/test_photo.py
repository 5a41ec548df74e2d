from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree.data.photo import photo_name, read_photo

RED = (255, 0, 0)


MODES = {
    "png": ["RGB", "L", "P", "RGBA", "LA", "I;16", "1"],
    "tiff": ["RGB", "L", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "1"],
    "jpg": ["RGB", "L", "CMYK", "YCbCr", "1"],
}


@pytest.mark.parametrize(("extension", "mode"), [(e, mode) for e, modes in MODES.items() for mode in modes])
def test_every_mode_becomes_rgb_with_the_same_picture(tmp_path: Path, extension: str, mode: str):
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    grey = Image.fromarray(ramp)
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    elif mode == "1":
        image = grey.convert("1", dither=Image.Dither.NONE)
    else:
        image = (grey.convert("RGB") if mode in ("CMYK", "YCbCr") else grey).convert(mode)
    path = tmp_path / f"ramp.{extension}"
    image.save(path)
    read = read_photo(path)
    assert (read.mode, read.size) == ("RGB", (64, 48))
    expected = np.where(ramp > 127, 255, 0) if mode == "1" else ramp.astype(int)
    assert np.abs(np.asarray(read).astype(int) - expected[..., None]).max() <= (12 if extension == "jpg" else 3)


def test_sixteen_bit_dark_photo_stays_dark():
    dark = Image.fromarray(np.full((3, 4), 514, np.uint16))
    assert np.asarray(read_photo(dark)).tolist() == np.full((3, 4, 3), 2).tolist()


def test_transparency_lies_on_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert np.asarray(read_photo(image)).tolist() == [[list(RED), [255, 255, 255]]]


def test_palette_with_transparency_lies_on_white(tmp_path: Path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "p.png", transparency=1)
    assert np.asarray(read_photo(tmp_path / "p.png")).tolist() == [[list(RED), [255, 255, 255]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int):
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste(RED, (0, 0, 8, 8))  # the red corner belongs at the top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "o.png", exif=exif)
    assert np.array_equal(np.asarray(read_photo(tmp_path / "o.png")), np.asarray(upright))


def test_unreadable_metadata_do_not_matter(tmp_path: Path):
    Image.new("RGB", (5, 4)).save(tmp_path / "x.jpg", exif=b"Exif\0\0nonsense")
    assert read_photo(tmp_path / "x.jpg").size == (5, 4)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((3, 5), 7, np.uint8), 7),
        (np.full((3, 5, 1), 7, np.uint8), 7),
        (np.full((3, 5, 3), 7, np.uint8), 7),
        (np.full((3, 5), 65535, np.uint16), 255),
        (np.full((3, 5, 3), 0.2, np.float32), 51),
        (np.ones((3, 5), bool), 255),
        (np.zeros((3, 5, 4), np.uint8), 255),
    ],
)
def test_arrays_are_photos(array: np.ndarray, expected: int):
    assert np.asarray(read_photo(array)).tolist() == np.full((3, 5, 3), expected).tolist()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 2), np.uint8), "shape"),
        (np.zeros(3, np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "4x0 pixels"),
        (np.full((2, 2), 3.0), "lie in"),
        (np.full((2, 2), np.nan), "lie in"),
        (np.zeros((2, 2), np.int64), "int64"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        read_photo(array)


def test_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.jpg"):
        read_photo(tmp_path / "none.jpg")


def test_folder(tmp_path: Path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_photo(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_no_image(tmp_path: Path, content: bytes):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.jpg is (not an image|damaged)"):
        read_photo(tmp_path / "x.jpg")


@pytest.mark.parametrize("extension", ["jpg", "png", "tiff", "webp", "gif", "bmp"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_truncated_file(tmp_path: Path, extension: str, kept: float):
    noise = np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, {"jpg": "jpeg"}.get(extension, extension))
    path = tmp_path / f"cut.{extension}"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * kept)])
    with pytest.raises(ValueError, match=r"cut\.\w+ is (not an image|damaged)") as caught:
        read_photo(path)
    assert "\n" not in str(caught.value)


def test_too_many_pixels():
    with pytest.raises(ValueError, match="10x11 pixels: 1 to 109"):
        read_photo(Image.new("RGB", (10, 11)), max_pixels=109)


def test_names(tmp_path: Path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    assert photo_name(tmp_path / "a.png") == photo_name(str(tmp_path / "a.png")) == "a.png"
    with Image.open(tmp_path / "a.png") as image:
        assert photo_name(image) == "a.png"
    assert photo_name(np.zeros((2, 2))) == photo_name(Image.new("L", (1, 1))) == "photo"

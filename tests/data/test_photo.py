from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import gray_png, png
from PIL import Image

from maskfree.data.decoding import MAX_PIXELS, picture_size
from maskfree.data.photo import photo_name, pixels_of, read_photo

RED = (255, 0, 0)


MODES = {
    "png": ["RGB", "L", "P", "RGBA", "LA", "I;16", "1"],
    "tiff": ["RGB", "L", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "1"],
    "jpg": ["RGB", "L", "CMYK", "YCbCr", "1"],
}


@pytest.mark.parametrize(
    ("extension", "mode"), [(e, mode) for e, modes in MODES.items() for mode in modes]
)
def test_every_mode_becomes_rgb_with_the_same_picture(tmp_path: Path, extension: str, mode: str):
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    gray = Image.fromarray(ramp)
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    elif mode == "1":
        image = gray.convert("1", dither=Image.Dither.NONE)
    else:
        image = (gray.convert("RGB") if mode in ("CMYK", "YCbCr") else gray).convert(mode)
    path = tmp_path / f"ramp.{extension}"
    image.save(path)
    read = read_photo(path)
    assert (read.mode, read.size) == ("RGB", (64, 48))
    expected = np.where(ramp > 127, 255, 0) if mode == "1" else ramp.astype(int)
    assert np.abs(np.asarray(read).astype(int) - expected[..., None]).max() <= (
        12 if extension == "jpg" else 3
    )


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


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
)
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


@pytest.mark.parametrize("extension", ["png", "jpg", "tiff", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_that_was_read_is_not_turned_again(
    tmp_path: Path, extension: str, orientation: int
):
    corner = Image.new("RGB", (32, 16), "white")
    corner.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"o.{extension}"
    corner.save(path, exif=exif, **({"compression": "tiff_lzw"} if orientation % 2 else {}))
    once = read_photo(path)
    red = np.abs(np.asarray(once).astype(int) - RED).max(-1) < 100
    height, width = red.shape
    # Where EXIF says that the first stored pixel is shown.
    top, left = orientation in (1, 2, 5, 6), orientation in (1, 4, 5, 8)
    if orientation in (6, 8):
        top, left = orientation == 6, orientation == 8
    assert (width, height) == picture_size(path) == ((32, 16) if orientation < 5 else (16, 32))
    shown = red[: height // 2] if top else red[height // 2 :]
    assert shown.sum() == red.sum() > 40
    shown = red[:, : width // 2] if left else red[:, width // 2 :]
    assert shown.sum() == red.sum()
    for again in (read_photo(once), read_photo(Image.open(path)), read_photo(path.read_bytes())):
        assert np.array_equal(np.asarray(again), np.asarray(once))


def test_the_first_picture_of_several_is_read_and_upright():
    first, second = Image.new("RGB", (32, 16), RED), Image.new("RGB", (20, 20))
    exif = Image.Exif()
    exif[0x0112] = 8
    for kind in ("MPO", "TIFF", "WEBP"):
        file = io.BytesIO()
        first.save(file, kind, save_all=True, append_images=[second.resize((32, 16))], exif=exif)
        read = read_photo(file.getvalue())
        assert read.size == read_photo(read).size == (16, 32)
        assert np.abs(np.asarray(read).astype(int) - RED).max() < 10


def test_metadata_after_the_pixels_of_a_png_count_too(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 16)).save(tmp_path / "early.png", exif=exif)
    content = (tmp_path / "early.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    (tmp_path / "late.png").write_bytes(
        content[:start] + content[end:last] + content[start:end] + content[last:]
    )
    assert picture_size(tmp_path / "late.png") == read_photo(tmp_path / "late.png").size == (16, 32)


@pytest.mark.parametrize("key", [0, 1, 2])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_gray_of_a_png_lies_on_white(bits: int, key: int):
    ramp = np.arange(2**bits if bits < 8 else 200, dtype=int)[None]
    ramp = ramp * 300 if bits == 16 else ramp
    key = key % 2 if bits == 1 else key * 300 if bits == 16 else key
    expected = np.where(ramp == key, 255, np.rint(ramp * 255 / (2**bits - 1)))
    read = np.asarray(read_photo(gray_png(ramp, bits, transparent=key)))
    assert read[..., 0].tolist() == expected.tolist()


def test_a_transparent_color_of_16_bits_is_refused():
    colors = np.zeros((2, 3, 3), ">u2")
    content = png(
        colors.shape[1::-1], 16, 2, b"".join(b"\0" + row.tobytes() for row in colors), b"\0" * 6
    )
    with pytest.raises(
        ValueError, match="photo has 16 bits and a transparent color: save it with an alpha channel"
    ):
        read_photo(content)


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_are_photos(dtype: torch.dtype, channels_first: bool):
    values = torch.zeros(5, 7, 3)
    values[1, 2] = torch.tensor([1.0, 0.5, 0.25])
    tensor = (values * 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)
    tensor = tensor.movedim(-1, 0) if channels_first else tensor
    read = read_photo(tensor.requires_grad_() if dtype == torch.float32 else tensor)
    assert read.size == (7, 5)
    assert np.abs(np.array(read.getpixel((2, 1))) - (255, 127.5, 63.75)).max() < 1
    assert photo_name(tensor) == "photo"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((n for n in range(3)), "a generator is no photo: give a path"),
        (None, "a NoneType is no photo"),
        (7, "a int is no photo"),
        ([[0, 1], [1, 0]], "a list is no photo"),
        (io.StringIO("text"), "binary mode"),
        (torch.zeros(2, 3, 4, 5), r"shape \(2, 3, 4, 5\) is no photo"),
        (torch.full((3, 4, 5), 255.0), r"lie in \[0, 1\]"),
        (torch.zeros(3, 4, 5, device="meta"), "the tensor is no photo"),
        (np.zeros((3, 8, 9), np.uint8), "channels come last"),
        (b"", "photo is not an image"),
    ],
)
def test_what_is_no_photo_is_named_in_one_line(source: object, message: str):
    with pytest.raises(ValueError, match=message) as raised:
        read_photo(source)
    assert "\n" not in str(raised.value)


def test_bytes_and_open_files_are_photos(tmp_path: Path):
    Image.new("RGB", (4, 3), RED).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with (tmp_path / "a.png").open("rb") as file:
        for source in (content, bytearray(content), memoryview(content), io.BytesIO(content), file):
            assert read_photo(source).getpixel((3, 2)) == RED


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (
            b"\0\0\0\x18ftypheic" + bytes(40),
            r"HEIC photo, which needs pillow-heif: pip install 'maskfree\[heic\]'",
        ),
        (b"\0\0\0\x18ftypmif1" + bytes(40), "HEIC photo"),
        (b"\xff\x0a" + bytes(40), "JPEG XL file"),
        (b"%PDF-1.7" + bytes(40), "PDF file"),
    ],
)
def test_known_formats_that_cannot_be_read_are_named(
    monkeypatch: pytest.MonkeyPatch, head: bytes, kind: str
):
    monkeypatch.setattr("maskfree.data.decoding.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"photo is a {kind}"):
        read_photo(head)


def test_a_postscript_file_is_never_run():
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ValueError, match="PostScript"):
        read_photo(content)


def test_the_bound_is_on_decoded_bytes():
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(
        ValueError, match=f"photo has {side}x{side} pixels: 1 to {MAX_PIXELS} are allowed"
    ):
        read_photo(png((side, side), 1, 0, b""))
    assert MAX_PIXELS * 4 <= 2**29


def test_pixels_are_those_of_the_picture():
    noise = np.random.default_rng(0).integers(0, 255, (600, 7, 3), np.uint8)
    assert np.array_equal(pixels_of(Image.fromarray(noise)), noise)


def test_names(tmp_path: Path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    assert photo_name(tmp_path / "a.png") == photo_name(str(tmp_path / "a.png")) == "a.png"
    with Image.open(tmp_path / "a.png") as image:
        assert photo_name(image) == "a.png"
    assert photo_name(np.zeros((2, 2))) == photo_name(Image.new("L", (1, 1))) == "photo"

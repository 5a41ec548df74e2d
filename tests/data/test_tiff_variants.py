"""TIFF files of all kinds are read to what they mean, or refused in one line."""

from __future__ import annotations

import io

import numpy as np
import pytest

from maskfree.data.photo import read_photo

tifffile = pytest.importorskip(
    "tifffile", reason="tifffile, which writes the variants, comes with scikit-image"
)

H, W = 24, 34
Y, X = np.mgrid[:H, :W]
COLORS = np.stack(
    [X * 255 // (W - 1), Y * 255 // (H - 1), (X + Y) * 255 // (W + H - 2)], -1
).astype(np.uint8)
GRAY = COLORS[..., 2]
WIDE = {"8": (np.uint8, 1), "16": (np.uint16, 257)}


def variants(bits: str) -> dict[str, tuple[np.ndarray, np.ndarray, dict]]:
    """Stored values, what they mean, and how they are written."""
    kind, scale = WIDE[bits]
    gray, colors = GRAY.astype(kind) * kind(scale), COLORS.astype(kind) * kind(scale)
    full = np.full((H, W), np.iinfo(kind).max, kind)
    grays = np.repeat(GRAY[..., None], 3, 2)
    layers = {"extrasamples": ["unassalpha"]}
    return {
        "black is zero": (gray, grays, {"photometric": "minisblack"}),
        "white is zero": (~gray, grays, {"photometric": "miniswhite"}),
        "RGB": (colors, COLORS, {"photometric": "rgb"}),
        "planes": (
            np.moveaxis(colors, -1, 0),
            COLORS,
            {"photometric": "rgb", "planarconfig": "separate"},
        ),
        "RGBA": (np.dstack([colors, full]), COLORS, {"photometric": "rgb", **layers}),
        "LA": (np.dstack([gray, full]), grays, {"photometric": "minisblack", **layers}),
        "CMYK": (np.dstack([~colors, full * 0]), COLORS, {"photometric": "separated"}),
        "float": ((GRAY / 255).astype(np.float32), grays, {"photometric": "minisblack"}),
        "float, white is zero": (
            (1 - GRAY / 255).astype(np.float32),
            grays,
            {"photometric": "miniswhite"},
        ),
        "signed": (gray.view(f"i{kind().itemsize}"), grays, {"photometric": "minisblack"}),
    }


READ = {"black is zero", "white is zero", "RGB", "RGBA", "CMYK", "float", "float, white is zero"}
"""Those of the variants that are to be read, where nothing else speaks against it."""


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("bits", list(WIDE))
def test_a_tiff_is_right_or_refused(
    bits: str, tile: tuple[int, int] | None, compression: str | None, order: str
):
    read = set()
    for name, (stored, expected, how) in variants(bits).items():
        file = io.BytesIO()
        with tifffile.TiffWriter(file, byteorder=order) as writer:
            writer.write(np.ascontiguousarray(stored), tile=tile, compression=compression, **how)
        try:
            found = np.asarray(read_photo(file.getvalue()))
        except ValueError as error:
            assert "\n" not in str(error) and str(error).startswith("photo "), name
            continue
        assert np.array_equal(found, expected), name
        read.add(name)
    assert {"black is zero", "RGB", "RGBA", "CMYK"} <= read
    if order == "<":
        assert read >= READ


def test_a_preview_is_not_taken_for_the_photo():
    file = io.BytesIO()
    tifffile.imwrite(file, COLORS, photometric="rgb", subfiletype=1)
    with pytest.raises(ValueError, match="photo is a TIFF whose first picture is a preview"):
        read_photo(file.getvalue())


def test_12_bits_are_read_on_their_own_scale():
    values = np.array([[0, 4095, 2048, 1024]])
    digits = "".join(format(value, "012b") for value in values.ravel())
    packed = int(digits, 2).to_bytes(len(digits) // 8, "big")
    file = io.BytesIO()
    tags = [
        (256, 4),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8 + 2 + 12 * 8 + 4),
        (277, 1),
        (279, len(packed)),
    ]
    file.write(b"II*\0" + (8).to_bytes(4, "little") + len(tags).to_bytes(2, "little"))
    for tag, value in tags:
        file.write(
            b"".join(
                n.to_bytes(size, "little") for n, size in ((tag, 2), (4, 2), (1, 4), (value, 4))
            )
        )
    file.write(bytes(4) + packed)
    assert np.asarray(read_photo(file.getvalue()))[0, :, 0].tolist() == [0, 255, 128, 64]

"""Photos with ICC profiles: converted to sRGB, and broken profiles that are ignored and said."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from icc_files import cmyk_profile, gray_profile, rgb_profile
from PIL import Image, ImageCms

from maskfree.data.photo import read_photo

SRGB = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]
SWAPPED = [SRGB[2], SRGB[0], SRGB[1]]  # red is shown as blue, green as red, blue as green


def encoded(image: Image.Image, profile: bytes, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format, icc_profile=profile)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "mode"), [("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA"), ("TIFF", "RGB")]
)
def test_colors_are_those_of_the_profile(format: str, mode: str):
    stored = Image.new("RGB", (4, 3), (200, 100, 50)).convert(mode)
    read = np.asarray(read_photo(encoded(stored, rgb_profile(SWAPPED, 2.2), format))).astype(int)
    assert np.abs(read - (100, 50, 200)).max() <= 5


def test_colors_of_a_jpeg_are_those_of_the_profile():
    read = read_photo(
        encoded(Image.new("RGB", (8, 8), (200, 100, 50)), rgb_profile(SWAPPED, 2.2), "JPEG")
    )
    assert np.abs(np.asarray(read).astype(int) - (100, 50, 200)).max() <= 6


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grays_are_those_of_the_profile(mode: str):
    linear = np.arange(256) / 255
    gray = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    stored = (
        Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
        if mode == "I;16"
        else gray.convert(mode)
    )
    read = np.asarray(read_photo(encoded(stored, gray_profile(1.0))))[0]
    expected = (
        np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    )
    assert np.abs(read - expected[:, None]).max() <= 1


def test_a_gray_photo_may_have_the_profile_of_its_colors():
    read = read_photo(encoded(Image.new("L", (2, 2), 128), rgb_profile(SRGB, 1.0)))
    assert np.abs(np.asarray(read).astype(int) - 188).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_inks_are_those_of_the_profile(format: str):
    # Paper is white; any ink is middle gray, but black is black.
    corners = [(255 if i == 0 else 0 if i % 2 else 128, 128, 128) for i in range(16)]
    stored = Image.new("CMYK", (24, 8), (0, 0, 0, 0))
    stored.paste((255, 0, 0, 0), (8, 0, 16, 8))
    stored.paste((0, 0, 0, 255), (16, 0, 24, 8))
    read = np.asarray(read_photo(encoded(stored, cmyk_profile(corners), format))).astype(int)
    assert np.abs(read[4, 4] - 255).max() <= 3
    assert np.abs(read[4, 12] - 119).max() <= 4
    assert read[4, 20].max() <= 4


def test_an_srgb_photo_is_not_touched():
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(np.asarray(read_photo(encoded(Image.fromarray(noise), profile))), noise)


@pytest.mark.parametrize("kind", ["noise", "cut", "another space"])
def test_a_broken_profile_is_ignored_and_said(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    corners = [(128, 128, 128)] * 16
    whole = rgb_profile(SWAPPED, 2.2)
    profile = {"noise": b"no profile", "cut": whole[:200], "another space": cmyk_profile(corners)}[
        kind
    ]
    (tmp_path / "a.png").write_bytes(encoded(Image.new("RGB", (4, 3), (200, 100, 50)), profile))
    with caplog.at_level(logging.WARNING):
        read = read_photo(tmp_path / "a.png")
    assert read.getpixel((0, 0)) == (200, 100, 50)
    assert "a.png: its color profile is ignored, sRGB is assumed" in caplog.text


def test_reading_twice_converts_once():
    stored = Image.new("RGB", (4, 3), (200, 100, 50))
    once = read_photo(encoded(stored, rgb_profile(SWAPPED, 2.2)))
    assert np.array_equal(np.asarray(read_photo(once)), np.asarray(once))

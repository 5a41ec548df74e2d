"""The oddly stored photos and id maps of ../shared/faults, through the commands and the reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maskfree
from maskfree import cli
from maskfree.data.benchmarks.davis import read_objects
from maskfree.data.photo import read_photo
from maskfree.data.photo_folders import find_photos

pytestmark = pytest.mark.real


@pytest.fixture
def fault(shared: Path) -> Callable[[str], Path]:
    """`fault("heic/p.heic")` is that file."""

    def find(name: str) -> Path:
        if not (shared / "faults" / name).exists():
            pytest.skip(f"{shared / 'faults' / name} is absent")
        return shared / "faults" / name

    return find


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("name", "right", "tolerance"),
    [
        ("exif_read_twice/exif6.png", "exif_read_twice/ref.png", 0),
        ("tiff_orientation/exif3.tif", "tiff_orientation/ref.png", 0),
        ("tiff_orientation/exif6.tif", "tiff_orientation/ref.png", 0),
        ("tiff_orientation/exif6_lzw.tif", "tiff_orientation/ref.png", 0),
        ("icc_profile/pagoda_prophoto.png", "icc_profile/pagoda_ref.png", 4),
        ("icc_profile/rocket_swapped.png", "icc_profile/rocket_ref.png", 1),
        ("grey16_trns/grey16trns.png", "grey16_trns/ref_gw.png", 0),
    ],
)
def test_photos_equal_their_references(
    fault: Callable[[str], Path], name: str, right: str, tolerance: int
):
    expected = np.asarray(Image.open(fault(right)).convert("RGB")).astype(int)
    once = read_photo(fault(name))
    for read in (
        once,
        read_photo(once),
        read_photo(Image.open(fault(name))),
        read_photo(fault(name).read_bytes()),
    ):
        found = np.asarray(read).astype(int)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= tolerance


def test_a_tiff_of_16_bits_is_right_or_refused(fault: Callable[[str], Path]):
    gray = np.asarray(Image.open(fault("tiff_16bit/ref.png")).convert("L"))
    read = np.asarray(read_photo(fault("tiff_16bit/white16.tif")))
    assert np.array_equal(read, np.repeat(gray[..., None], 3, 2))
    with pytest.raises(ValueError, match="16 bits in separate planes"):
        read_photo(fault("tiff_16bit/rgb16_planar.tif"))


def test_ids_of_4_bits(
    fault: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    mask = fault("index_png_low_bits/m4.png")
    assert np.unique(read_objects(mask)).tolist() == [0, 1, 2]
    frames = tmp_path / "frames"
    frames.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(
        frames / "0.png"
    )
    out = tmp_path / "out"
    status, _, error = run(
        capsys, "track", frames, "--first", mask, "--out", out, "--side-px", 64, "--device", "cpu"
    )
    assert status == 0, error
    assert np.unique(np.asarray(Image.open(out / "labels" / "0.png"))).tolist() == [0, 1, 2]
    folder = fault("index_png_low_bits/gray4_20")
    status, _, error = run(
        capsys,
        "evaluate",
        "folder",
        "--data",
        folder,
        "--results",
        tmp_path / "results",
        "--device",
        "cpu",
    )
    assert status == 0, error


@pytest.mark.parametrize("kind", ["o1_stored", "o6_shown", "o6_stored"])
def test_truth_of_turned_photos(
    fault: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
):
    folder, results = tmp_path / "data", tmp_path / "results"
    shutil.copytree(fault(f"exif_evaluate/{kind}"), folder)
    if kind != "o6_stored":
        # The truth is the model's own answer on the upright photo, so that accuracy is 1.
        words = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
        model = maskfree.load(device="cpu")
        # At the size of the default protocol.
        model = model.with_inference(model.inference.changed(side_px=448))
        answer = model(folder / "images" / "a.png", words=words)
        Image.fromarray(answer.labels.astype("uint8")).save(folder / "labels" / "a.png")
    status, _, error = run(
        capsys, "evaluate", "folder", "--data", folder, "--results", results, "--device", "cpu"
    )
    if kind == "o6_stored":
        assert (status, error.count("\n")) == (2, 1)
        assert (
            "a photo is shown upright, as its EXIF orientation says, and so must its truth be"
            in error
        )
        return
    assert status == 0, error
    from maskfree.evaluation.reporting.results import read_row

    [row] = [read_row(path) for path in results.glob("*.json")]
    assert row.pixel_accuracy > 0.999


def test_a_turned_first_frame_is_followed_like_an_upright_one(
    fault: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for kind in ("exiftrack", "plaintrack"):
        out = tmp_path / kind
        options = (
            "--words",
            "building,sky,tree",
            "--out",
            out,
            "--side-px",
            160,
            "--device",
            "cpu",
        )
        status, _, error = run(capsys, "track", fault(f"exif_read_twice/{kind}"), *options)
        assert status == 0, error
    for index in range(3):
        turned, plain = (
            Image.open(tmp_path / kind / f"labels/{index}.png")
            for kind in ("exiftrack", "plaintrack")
        )
        assert np.array_equal(np.asarray(turned), np.asarray(plain))


def test_heic_names_the_extra(
    fault: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
):
    monkeypatch.setattr("maskfree.data.decoding.find_spec", lambda name: None)
    status, _, error = run(
        capsys, "segment", fault("heic/p.heic"), "--words", "cat", "--out", tmp_path / "out"
    )
    assert status == 2
    assert "p.heic is a HEIC photo, which needs pillow-heif: pip install 'maskfree[heic]'" in error


def test_all_photos_of_a_folder_are_found_and_others_said(
    fault: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert len(find_photos([str(fault("folder_suffixes/mixed"))])) == 7
    folder = fault("folder_other_files/thumbs_db")
    results = tmp_path / "results"
    status, _, error = run(
        capsys, "evaluate", "folder", "--data", folder, "--results", results, "--device", "cpu"
    )
    assert status == 0, error
    assert "1 of 2 files are no photos and are left out (Thumbs.db)" in caplog.text

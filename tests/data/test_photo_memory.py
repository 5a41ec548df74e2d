"""What a large photo costs: decoded bytes are bounded, and a photo is not held several times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_files import png

from maskfree.data.decoding import MAX_BYTES, MAX_PIXELS
from peak_memory import STATUS, peak_bytes_of

pytestmark = pytest.mark.skipif(
    not STATUS.exists(), reason=f"there is no {STATUS}, which tells the peak of memory"
)


def blank(path: Path, side: int, bits: int, color_type: int) -> Path:
    """A square PNG of zeros, which compress to nearly nothing."""
    bytes_per_row = -(-side * bits * {0: 1, 2: 3, 6: 4}[color_type] // 8)
    path.write_bytes(png((side, side), bits, color_type, bytes((1 + bytes_per_row) * side)))
    return path


def test_reading_costs_few_bytes_a_pixel(tmp_path: Path):
    side = 3000
    read = "from maskfree.data.photo import read_photo; read_photo({!r})"
    before = peak_bytes_of(read.format(str(blank(tmp_path / "small.png", 1, 8, 6))))
    for bits, color_type in ((16, 0), (8, 6)):
        large = blank(tmp_path / "large.png", side, bits, color_type)
        assert (peak_bytes_of(read.format(str(large))) - before) / side**2 < 11


@pytest.mark.slow
def test_the_largest_photo_is_labeled_within_two_gigabytes(tmp_path: Path):
    side = int(np.sqrt(MAX_PIXELS))
    photo = blank(tmp_path / "a.png", side, 1, 0)
    arguments = [
        "segment",
        str(photo),
        "--words",
        "sky",
        "tree",
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    program = (
        f"from maskfree import cli\ntry: cli.main({arguments})\nexcept SystemExit as end: "
        "assert not end.code"
    )
    assert peak_bytes_of(program) < 4 * MAX_BYTES
    assert (tmp_path / "out" / "a.png").is_file()

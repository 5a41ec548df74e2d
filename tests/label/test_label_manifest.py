"""The manifest of a labeled data set."""

from __future__ import annotations

import sqlite3
from itertools import chain
from pathlib import Path

import pytest

from maskfree.label.manifest import MANIFEST, Manifest
from maskfree.label.photo_row import DONE, FAILED, WAITING, packed, unpacked
from maskfree.label.work_list import FoundPhoto


def photo(path: str, name: str, member: str = "") -> FoundPhoto:
    return FoundPhoto(Path(path), member, name)


def test_names_are_unique_in_any_letter_case_and_spelling(tmp_path: Path):
    with Manifest(tmp_path) as manifest:
        given = ["a", "A", "a", "a-2", "b", "caf\u00e9", "cafe\u0301"]
        rows = [manifest.add(photo(f"/{n}.jpg", name), 1) for n, name in enumerate(given)]
    assert [row.name for row in rows] == [
        "a",
        "A-2",
        "a-3",
        "a-2-2",
        "b",
        "caf\u00e9",
        "cafe\u0301-2",
    ]


def test_a_photo_keeps_its_name_from_run_to_run(tmp_path: Path):
    with Manifest(tmp_path) as manifest:
        first = manifest.add(photo("/x/a.jpg", "a"), 1)
    with Manifest(tmp_path) as manifest:
        assert manifest.row_of("/x/a.jpg") == first
        assert manifest.row_of("/y/a.jpg") is None
        assert manifest.add(photo("/y/a.jpg", "a"), 2).name == "a-2"
        assert manifest.next_run() == 3


def test_names_of_files_need_not_be_utf_8(tmp_path: Path):
    odd = photo("/p/caf\udce9\n'.jpg", "x", "m\udcff.png")
    with Manifest(tmp_path) as manifest:
        row = manifest.add(odd, 1)
        assert (row.source, row.member, row.path) == (odd.source, odd.member, odd.path)
        manifest.change(row.id, error="no caf\udce9", state=FAILED)
        assert list(manifest.reasons(1, 5)) == [f"{odd.source}: no caf\\udce9"]


def test_each_process_has_its_own_part(tmp_path: Path):
    with Manifest(tmp_path) as manifest:
        rows = [manifest.add(photo(f"/{n}.jpg", str(n)), 5) for n in range(700)]
        manifest.add(photo("/old.jpg", "old"), 4)
        manifest.change(rows[10].id, state=DONE)
        parts = [[row.id for row in manifest.waiting(5, rank, 3)] for rank in range(3)]
    assert all(200 < len(part) < 270 for part in parts)
    assert sorted(chain.from_iterable(parts)) == [row.id for row in rows if row.id != rows[10].id]


def test_rows_that_are_done_while_others_are_read_are_left_out_of_none(tmp_path: Path):
    """The reader goes on from the last row, whatever the writer does to earlier ones."""
    with Manifest(tmp_path) as reading, Manifest(tmp_path) as writing:
        for number in range(600):
            reading.add(photo(f"/{number}.jpg", str(number)), 1)
        seen = []
        for row in reading.waiting(1):
            seen.append(row.name)
            writing.change(row.id, state=DONE)
        assert seen == [str(number) for number in range(600)]
        assert writing.count(1) == {WAITING: 0, DONE: 600, FAILED: 0}


def test_done_photos_come_by_name_and_the_least_certain_first(tmp_path: Path):
    with Manifest(tmp_path) as manifest:
        for number, name in enumerate(["c", "B", "a", "d"]):
            row = manifest.add(photo(f"/{name}.jpg", name), 1)
            if name != "d":
                values = {"confidence": number / 10, "regions": packed([name])}
                manifest.change(row.id, state=DONE, **values)
        assert [(row.name, unpacked(regions)) for row, regions in manifest.done()] == [
            ("a", ["a"]),
            ("B", ["B"]),
            ("c", ["c"]),
        ]
        assert [row.name for row in manifest.least_certain(2)] == ["c", "B"]


def test_changes_made_together_are_all_made_or_none(tmp_path: Path):
    with Manifest(tmp_path) as manifest:
        with pytest.raises(KeyboardInterrupt), manifest.together():
            manifest.add(photo("/a.jpg", "a"), 1)
            raise KeyboardInterrupt
        assert manifest.row_of("/a.jpg") is None
        with manifest.together():
            manifest.add(photo("/a.jpg", "a"), 1)
    with Manifest(tmp_path) as manifest:
        assert manifest.row_of("/a.jpg") is not None


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path, content: bytes):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or no manifest") as refused:
        Manifest(tmp_path)
    assert "\n" not in str(refused.value)
    assert (tmp_path / MANIFEST).read_bytes() == content


def test_a_database_of_others_is_refused(tmp_path: Path):
    with sqlite3.connect(tmp_path / MANIFEST) as other:
        other.execute("CREATE TABLE photos (id)")
    other.close()
    with pytest.raises(ValueError, match="is no manifest of this version"):
        Manifest(tmp_path)


def test_damage_within_is_told_in_one_line(tmp_path: Path):
    with Manifest(tmp_path) as manifest:
        for number in range(300):
            manifest.add(photo(f"/{number}.jpg", str(number)), 1)
    content = bytearray((tmp_path / MANIFEST).read_bytes())
    content[8192:] = b"\x77" * (len(content) - 8192)
    (tmp_path / MANIFEST).write_bytes(content)
    with (
        pytest.raises(ValueError, match="to label anew, or give another folder"),
        Manifest(tmp_path) as manifest,
    ):
        list(manifest.waiting(1))
        manifest.count()


def test_a_disk_error_is_an_os_error(tmp_path: Path, largest_file):
    def fill(manifest: Manifest) -> None:
        with largest_file(150_000):
            for number in range(2000):
                manifest.add(photo(f"/{number}.jpg", str(number)), 1)

    with Manifest(tmp_path) as manifest:
        with pytest.raises(OSError, match=r"cannot write .*manifest.sqlite"):
            fill(manifest)
        assert manifest.row_of("/0.jpg") is not None


def test_damaged_regions_are_told():
    assert unpacked(packed([1, {"a": None}])) == [1, {"a": None}]
    with pytest.raises(ValueError, match="regions of a photo are damaged"):
        unpacked(b"x")

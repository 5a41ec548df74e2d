"""The listing of what lies under a root, what is missing first."""

import pytest
from trees import coco_files, write

from maskfree.data.benchmarks.catalog import BENCHMARKS, benchmark
from maskfree.data.benchmarks.inventory import check, overview


def camvid(root, count=2):
    for i in range(count):
        write(root, {f"val/images/{i}.png": (2, 1), f"val/labels/{i}.png": [[i, 11]]})
    return root


def test_a_complete_benchmark_has_its_photos_counted(tmp_path):
    camvid(tmp_path / "camvid", 3)
    found = check(benchmark("camvid"), tmp_path)
    assert (found.root, found.num_photos, found.expected, found.problem) == (
        tmp_path / "camvid",
        3,
        101,
        "",
    )
    assert found.state == f"3 photos in {tmp_path / 'camvid'}, published with 101"


def test_the_published_number_is_not_repeated_and_not_asked_of_a_folder(tmp_path):
    camvid(tmp_path, 101)
    assert check(benchmark("camvid"), tmp_path).state == f"101 photos in {tmp_path}"
    write(tmp_path, {"images/a.jpg": (1, 1), "labels/a.png": [[0]], "classes.txt": "lamp"})
    assert check(benchmark("folder"), tmp_path).state == f"1 photos in {tmp_path}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("val/labels/1.png", "val/labels/1.png is missing"),
        ("val/labels", "val/labels is missing"),
        ("val", "val/images is missing"),
    ],
)
def test_what_is_missing_first_is_named(tmp_path, spoil, message):
    camvid(tmp_path)
    (tmp_path / spoil).rename(tmp_path / "elsewhere")
    found = check(benchmark("camvid"), tmp_path)
    assert found.problem == f"{tmp_path}/{message}" == found.state
    assert found.num_photos == 0


def test_nothing_is_opened_to_count(tmp_path):
    write(tmp_path, coco_files())
    for photo in (tmp_path / "images").iterdir():
        photo.write_bytes(b"")
    assert check(benchmark("coco-mini"), tmp_path).num_photos == 2
    (tmp_path / "instances.json").write_text("[]")
    assert "is no COCO instance file" in check(benchmark("coco-mini"), tmp_path).problem


def test_all_benchmarks_are_listed_with_their_layout(tmp_path):
    camvid(tmp_path)
    rows = {row.name: row for row in overview(tmp_path)}
    assert list(rows) == list(BENCHMARKS)
    assert all(
        row.layout and row.title and (row.source or row.name == "folder") for row in rows.values()
    )
    assert rows["voc20"].num_classes == 20
    assert rows["folder"].num_classes is None
    assert rows["folder"].layout == "images/*.* and labels/*.png and classes.txt"
    assert (
        rows["folder"].found.problem
        == f"{tmp_path}/classes.txt is missing: it names the classes, one a line"
    )
    assert rows["voc20"].state == f"{tmp_path}/JPEGImages is missing"
    assert [name for name, row in rows.items() if not row.found.problem] == ["camvid"]


def test_without_a_root_nothing_is_sought():
    assert all(row.found is None and row.state == "" for row in overview())


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere is no folder"):
        overview(tmp_path / "nowhere")

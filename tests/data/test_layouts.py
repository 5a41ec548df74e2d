"""Photos and index maps on disk: gaps in paths, lists, alternatives, tables of values, and what is
refused.
"""

import numpy as np
import pytest
from PIL import Image
from trees import size, write

from maskfree.data.benchmarks.index_maps import IndexMaps, Truth
from maskfree.data.benchmarks.label_ids import NOTHING, counted, with_void
from maskfree.ops.ignore import IGNORE

CLASSES = tuple("abcdefghijk")
LABELS = np.arange(12).reshape(3, 4)


def read(layout, root, classes=CLASSES, nothing=99):
    return {
        sample.key: sample.read_truth().tolist()
        for sample in layout.samples(root, classes, nothing)
    }


@pytest.fixture
def index_root(tmp_path):
    return write(tmp_path, {"images/a.jpg": size(LABELS), "labels/a.png": LABELS})


def test_void_pixels_do_not_count(index_root):
    layout = IndexMaps(truths=(Truth(ids=with_void(11)),))
    assert read(layout, index_root) == {
        "images/a.jpg": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, IGNORE]]
    }


def test_255_never_counts_and_nothing_is_what_the_caller_says(tmp_path):
    write(tmp_path, {"images/a.jpg": (3, 2), "labels/a.png": [[0, 1, 255], [2, 0, 11]]})
    layout = IndexMaps(truths=(Truth(ids=counted(11, NOTHING)),))
    assert read(layout, tmp_path) == {"images/a.jpg": [[99, 0, IGNORE], [1, 99, 10]]}
    assert read(layout, tmp_path, nothing=IGNORE) == {
        "images/a.jpg": [[IGNORE, 0, IGNORE], [1, IGNORE, 10]]
    }


@pytest.mark.parametrize(
    ("ids", "value", "message"),
    [
        (None, 11, "a.png holds id 11, which stands for no class: ids run to 10, and 255 is void"),
        (counted(11, IGNORE), 12, "a.png holds id 12, .* ids run to 11"),
        ({0: 0, 5: 1}, 3, "a.png holds id 3, .* ids run to 5"),
    ],
)
def test_a_value_that_stands_for_no_class_is_named(tmp_path, ids, value, message):
    write(tmp_path, {"images/a.jpg": (2, 1), "labels/a.png": [[0, value]]})
    (sample,) = IndexMaps(truths=(Truth(ids=ids),)).samples(tmp_path, CLASSES, 99)
    with pytest.raises(ValueError, match=message):
        sample.read_truth()


def test_gaps_of_the_photo_fill_those_of_the_truth(tmp_path):
    layout = IndexMaps(("in/{city}/{name}_rgb.png",), (Truth("out/{city}/{name}_ids.png"),))
    write(tmp_path, {"in/b/2_rgb.png": (1, 2), "in/a/1_rgb.png": (2, 1), "in/a/skip.png": (2, 1)})
    write(tmp_path, {"out/a/1_ids.png": [[3, 4]], "out/b/2_ids.png": [[5], [6]]})
    assert read(layout, tmp_path) == {"in/a/1_rgb.png": [[3, 4]], "in/b/2_rgb.png": [[5], [6]]}


def test_a_name_may_have_dots_and_hidden_files_are_no_photos(tmp_path):
    write(
        tmp_path, {"images/a.b.jpg": (1, 1), "labels/a.b.png": [[2]], "images/.hidden.jpg": (1, 1)}
    )
    assert read(IndexMaps(), tmp_path) == {"images/a.b.jpg": [[2]]}


def test_a_list_says_which_photos_and_in_which_order(tmp_path):
    layout = IndexMaps(("images/{name}.jpg",), lists=("first.txt", "second.txt"))
    for name in "abc":
        write(tmp_path, {f"images/{name}.jpg": (1, 1), f"labels/{name}.png": [[0]]})
    write(tmp_path, {"second.txt": "c\na\n"})
    assert list(read(layout, tmp_path)) == ["images/c.jpg", "images/a.jpg"]
    write(tmp_path, {"first.txt": "b\n"})
    assert list(read(layout, tmp_path)) == ["images/b.jpg"]
    write(tmp_path, {"first.txt": "\n"})
    with pytest.raises(ValueError, match=r"first.txt names no photo"):
        read(layout, tmp_path)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("a\nb\na\n", "first.txt names 'a' 2 times: each photo counts once"),
        ("../images/a\n", "first.txt names '../images/a', which leads out of the folder"),
        ("/a\n", "first.txt names '/a', which leads out"),
    ],
)
def test_a_list_names_each_photo_once_and_none_elsewhere(tmp_path, listed, message):
    layout = IndexMaps(("images/{name}.jpg",), lists=("first.txt",))
    for name in "ab":
        write(tmp_path, {f"images/{name}.jpg": (1, 1), f"labels/{name}.png": [[0]]})
    write(tmp_path, {"first.txt": listed})
    with pytest.raises(ValueError, match=message):
        read(layout, tmp_path)


def test_a_list_is_read_as_editors_write_it(tmp_path):
    layout = IndexMaps(("images/{name}.jpg",), lists=("first.txt",))
    for name in "ab":
        write(tmp_path, {f"images/{name}.jpg": (1, 1), f"labels/{name}.png": [[0]]})
    (tmp_path / "first.txt").write_bytes(b"\xef\xbb\xbfb\r\n\r\na \t\r\n\n")
    assert list(read(layout, tmp_path)) == ["images/b.jpg", "images/a.jpg"]


@pytest.mark.parametrize("values", [[[-1, 3]], [[0.5, 3]], [[float("nan"), 3]], ["ab"]])
def test_a_mat_file_of_anything_but_ids_is_refused(tmp_path, values):
    from scipy.io import savemat

    write(tmp_path, {"images/a.jpg": (2, 1)})
    (tmp_path / "labels").mkdir()
    savemat(tmp_path / "labels" / "a.mat", {"LabelMap": np.array(values)})
    with pytest.raises(ValueError, match=r"a\.mat is no \.mat file with a LabelMap|1x1") as raised:
        read(IndexMaps(truths=(Truth("labels/{name}.mat"),)), tmp_path)
    assert "\n" not in str(raised.value)


def test_the_first_kind_of_truth_that_is_there_is_read_for_all(tmp_path):
    layout = IndexMaps(truths=(Truth("a/{name}.png"), Truth("b/{name}.png", counted(11, IGNORE))))
    write(
        tmp_path,
        {"images/1.jpg": (1, 1), "images/2.jpg": (1, 1), "b/1.png": [[1]], "b/2.png": [[2]]},
    )
    assert read(layout, tmp_path) == {"images/1.jpg": [[0]], "images/2.jpg": [[1]]}
    write(tmp_path, {"a/1.png": [[1]]})
    with pytest.raises(FileNotFoundError, match=r"a/2.png is missing"):
        read(layout, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "labels" / "a.png").unlink(), "a.png is missing"),
        (lambda root: (root / "images" / "a.jpg").unlink(), "images holds no photo"),
        (
            lambda root: Image.new("L", (3, 4)).save(root / "labels" / "a.png"),
            "a.jpg is 4x3 but a.png is 3x4",
        ),
        (
            lambda root: (root / "labels" / "a.png").write_bytes(b"?"),
            "a.png cannot be read as an index PNG",
        ),
        (
            lambda root: (root / "images" / "a.jpg").write_bytes(b"?"),
            "a.jpg cannot be read as a photo",
        ),
    ],
)
def test_a_spoilt_tree_is_refused_before_any_map_is_decoded(index_root, spoil, message):
    spoil(index_root)
    with pytest.raises((ValueError, OSError), match=message):
        IndexMaps().samples(index_root, CLASSES, 99)


def test_the_first_missing_folder_or_list_is_named(tmp_path):
    layout = IndexMaps(("images/{name}.jpg", "photos/{name}.jpg"), lists=("sets/val.txt",))
    assert layout.missing(tmp_path) == tmp_path / "images"
    write(tmp_path, {"photos/a.jpg": (1, 1)})
    assert layout.missing(tmp_path) == tmp_path / "labels"
    write(tmp_path, {"labels/a.png": [[0]]})
    assert layout.missing(tmp_path) == tmp_path / "sets/val.txt"
    write(tmp_path, {"sets/val.txt": "a"})
    assert layout.missing(tmp_path) is None
    assert layout.describe() == "(images/*.jpg or photos/*.jpg) and labels/*.png and sets/val.txt"


def test_a_color_label_map_is_refused(tmp_path):
    write(tmp_path, {"images/a.jpg": (4, 3), "labels/a.png": (4, 3)})
    (sample,) = IndexMaps().samples(tmp_path, CLASSES, 99)
    with pytest.raises(ValueError, match="has mode RGB"):
        sample.read_truth()


MAT = IndexMaps(truths=(Truth("maps/{name}.mat", {0: NOTHING, 255: 1, 300: 0}),))


def test_a_mat_file_holds_values_beyond_a_byte_and_255_may_be_one_of_them(tmp_path):
    write(tmp_path, {"images/a.jpg": (3, 1), "maps/a.mat": [[300, 255, 0]]})
    assert read(MAT, tmp_path) == {"images/a.jpg": [[0, 1, 99]]}


def test_what_is_wrong_with_a_mat_file_is_named(tmp_path):
    from scipy.io import savemat

    write(tmp_path, {"images/a.jpg": (3, 1), "maps/a.mat": [[300, 301, 0]]})
    (sample,) = MAT.samples(tmp_path, CLASSES, 99)
    with pytest.raises(
        ValueError, match=r"a.mat holds id 301, which stands for no class: ids run to 300"
    ):
        sample.read_truth()
    write(tmp_path, {"images/a.jpg": (2, 1)})
    with pytest.raises(ValueError, match=r"a.jpg is 2x1 but a.mat is 3x1"):
        MAT.samples(tmp_path, CLASSES, 99)
    savemat(tmp_path / "maps" / "a.mat", {"Other": np.zeros((1, 2))})
    with pytest.raises(ValueError, match=r"a.mat is no .mat file with a LabelMap: KeyError"):
        MAT.samples(tmp_path, CLASSES, 99)
    (tmp_path / "maps" / "a.mat").write_bytes(b"plain nonsense, long enough to be looked at" * 9)
    with pytest.raises(ValueError, match=r"a.mat is no .mat file with a LabelMap"):
        MAT.samples(tmp_path, CLASSES, 99)


def test_without_scipy_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path, {"images/a.jpg": (3, 1), "maps/a.mat": [[300, 255, 0]]})
    monkeypatch.setattr("maskfree.data.benchmarks.layouts.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"^\.mat files need scipy: pip install 'maskfree\[evaluate\]'$"
    ):
        MAT.samples(tmp_path, CLASSES, 99)


def test_files_that_are_no_photos_are_left_out_and_said(tmp_path, caplog):
    write(tmp_path, {"images/a.jpg": (2, 1), "labels/a.png": [[0, 1]]})
    for name in ("Thumbs.db", ".DS_Store", "notes.txt"):
        (tmp_path / "images" / name).write_bytes(b"x")
    assert list(read(IndexMaps(), tmp_path)) == ["images/a.jpg"]
    assert "3 of 4 files are no photos and are left out" in caplog.text


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_truth_is_that_of_the_photo_as_it_is_shown(tmp_path, name):
    write(tmp_path, {"images/x.jpg": (3, 2), "labels/a.png": [[0, 1, 2], [3, 4, 5]]})
    (tmp_path / "images" / "x.jpg").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2, 3)).save(tmp_path / "images" / name, exif=exif)
    assert read(IndexMaps(), tmp_path) == {f"images/{name}": [[0, 1, 2], [3, 4, 5]]}
    write(tmp_path, {"labels/a.png": [[0, 1], [2, 3], [4, 5]]})
    with pytest.raises(ValueError, match=r"is 3x2 but a\.png is 2x3: a photo is shown upright"):
        read(IndexMaps(), tmp_path)

"""Benchmarks: class lists and what is known of them, where their files are sought, and a user's own
folder.
"""

import hashlib

import numpy as np
import pytest
from trees import coco_files, write

from maskfree.data.benchmarks.catalog import BENCHMARKS, CLASSES, Benchmark, benchmark, files_sha256
from maskfree.ops.ignore import IGNORE
from maskfree.text.vocabulary import Vocabulary
from shared_folder import SHARED

PERSON = 14
OWN_NAMES = {name for name in BENCHMARKS if name != "folder"}

NUM_CLASSES = dict.fromkeys(("voc20", "voc21", "voc-train", "voc-trainaug", "coco-mini"), 20)
NUM_CLASSES |= dict.fromkeys(("context59", "context60"), 59) | {
    "coco-stuff": 171,
    "coco-stuff-27": 27,
}
NUM_CLASSES |= dict.fromkeys(("coco-object", "coco-mini-80"), 80) | {
    "ade20k": 150,
    "cityscapes": 19,
}
NUM_CLASSES |= dict.fromkeys(("camvid", "camvid-train"), 11)


@pytest.mark.parametrize("name", sorted(OWN_NAMES))
def test_class_lists_keep_the_rules_of_a_vocabulary(name):
    chosen = benchmark(name)
    assert len(chosen.words()) == NUM_CLASSES[name]
    for name_set in chosen.names:
        words = chosen.words(name_set)
        assert len(Vocabulary.parse(words).classes) == NUM_CLASSES[name]
        assert all("/" not in word for word in words) or name_set != "plain"
        if name_set == "synonyms":
            assert [line.split("/")[0] for line in words] == list(chosen.words())


def test_lists_are_in_their_official_order():
    ends = {
        name: (words[0], words[-1]) for name in OWN_NAMES for words in [benchmark(name).words()]
    }
    assert ends["voc20"] == ("aeroplane", "tv monitor")
    assert ends["context59"] == ("aeroplane", "wood")
    assert ends["coco-stuff"] == ("person", "wood")
    assert ends["coco-stuff-27"] == ("electronic things", "water stuff")
    assert ends["coco-object"] == ("person", "toothbrush")
    assert ends["ade20k"] == ("wall", "flag")
    assert ends["cityscapes"] == ("road", "bicycle")
    for name in ("voc20", "context59"):
        assert list(benchmark(name).words()) == sorted(benchmark(name).words())
    assert benchmark("coco-stuff").words()[:80] == benchmark("coco-object").words()
    assert benchmark("ade20k").words()[12] == "person"
    assert benchmark("cityscapes").words()[11] == "person"


@pytest.mark.parametrize(
    ("name", "count"), [("voc21", 5), ("coco-mini", 5), ("context59", 4), ("coco-stuff", 15)]
)
def test_unseen_classes_are_classes(name, count):
    chosen = benchmark(name)
    assert len(set(chosen.unseen)) == count
    assert set(chosen.unseen) <= set(chosen.words())


def test_the_background_is_known_to_some():
    assert {name for name, chosen in BENCHMARKS.items() if chosen.background} == {
        *("voc21", "voc-train", "voc-trainaug", "context60"),
        *("coco-object", "coco-mini", "coco-mini-80"),
    }


def test_the_names_of_sclip_are_as_its_protocol_has_them():
    voc = dict(zip(benchmark("voc20").words(), benchmark("voc20").words("sclip"), strict=True))
    assert voc["boat"] == "ship"
    assert voc["dining table"] == "table"
    assert len(voc["person"].split("/")) == 7
    assert len(voc["tv monitor"].split("/")) == 5
    assert len(benchmark("coco-object").words("sclip")[0].split("/")) == 8


def test_the_names_of_tcl_are_spelled_as_in_mmseg():
    for bench in (benchmark("voc20"), benchmark("voc21")):
        pairs = zip(bench.words(), bench.words("tcl"), strict=True)
        assert {plain: name for plain, name in pairs if plain != name} == {
            "dining table": "diningtable",
            "potted plant": "pottedplant",
            "tv monitor": "tvmonitor",
        }


def test_an_unknown_benchmark_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown benchmark 'coco': choose from voc20, voc21, "):
        benchmark("coco")


def test_an_unknown_name_set_is_refused():
    with pytest.raises(ValueError, match="ade20k has no name set 'synonyms': choose from plain"):
        benchmark("ade20k").words("synonyms")


def test_a_missing_root_names_the_layout(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"is no folder; cityscapes needs leftImg8bit/val/\*/\*_left"
    ):
        benchmark("cityscapes").samples(tmp_path / "nowhere")


def test_files_are_found_under_the_root_of_all_data_but_the_root_itself_comes_first(tmp_path):
    chosen = benchmark("coco-mini")
    assert chosen.find(tmp_path) == tmp_path
    write(tmp_path / "coco-mini", {"images/a.jpg": (1, 1)})
    assert chosen.find(tmp_path) == tmp_path / "coco-mini"
    with pytest.raises(FileNotFoundError, match=r"coco-mini/instances.json is missing"):
        chosen.samples(tmp_path)
    write(tmp_path / "coco-mini", coco_files())
    assert len(chosen.samples(tmp_path)) == 2
    write(tmp_path, coco_files())
    assert chosen.find(tmp_path) == tmp_path


def test_the_file_hash_tells_another_list_apart_but_not_another_root(tmp_path):
    samples = benchmark("coco-mini").samples(write(tmp_path / "coco-mini", coco_files()))
    assert [sample.key for sample in samples] == ["images/3.jpg", "images/7.jpg"]
    assert files_sha256(samples) != files_sha256(samples[:1])
    assert files_sha256(samples) == files_sha256(benchmark("coco-mini").samples(tmp_path))


def test_the_name_hash_is_that_of_the_file():
    digest = hashlib.sha256((CLASSES / "ade150.txt").read_bytes()).hexdigest()
    assert benchmark("ade20k").names_sha256("plain") == digest


@pytest.fixture
def folder_root(tmp_path):
    files = {
        "images/a.jpg": (4, 1),
        "labels/a.png": [[0, 1, 2, 255]],
        "classes.txt": "sofa/couch\nlamp\nplant\n",
    }
    return write(tmp_path, files)


def test_a_folder_brings_its_own_classes(folder_root):
    chosen = benchmark("folder", folder_root)
    assert chosen.words() == ("sofa/couch", "lamp", "plant")
    assert chosen.names == {"plain": "classes"}
    assert not chosen.background
    assert chosen.names_sha256("plain") == hashlib.sha256(b"sofa/couch\nlamp\nplant\n").hexdigest()
    (sample,) = chosen.samples(folder_root)
    assert sample.key == "images/a.jpg"
    assert sample.read_truth().tolist() == [[0, 1, 2, IGNORE]]


@pytest.mark.parametrize(
    ("lines", "truth"),
    [("Background\nlamp\nplant", [2, 0, 1]), ("lamp\nbackground\nplant", [0, 2, 1])],
)
def test_a_line_background_is_no_class_wherever_it_stands(folder_root, lines, truth):
    write(folder_root, {"classes.txt": lines})
    chosen = benchmark("folder", folder_root)
    assert chosen.words() == ("lamp", "plant")
    assert chosen.background
    assert chosen.samples(folder_root)[0].read_truth().tolist() == [[*truth, IGNORE]]


def test_further_lists_of_a_folder_are_name_sets(folder_root):
    write(folder_root, {"classes_short.txt": "a\nb\nc\n"})
    assert benchmark("folder", folder_root).words("short") == ("a", "b", "c")
    write(folder_root, {"classes_long.txt": "a\nb\nc\nd\n"})
    with pytest.raises(
        ValueError, match=r"classes_long.txt does not name the classes of classes.txt"
    ):
        benchmark("folder", folder_root)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("lamp\n\nplant", "classes.txt:2 is '': a line is one class"),
        ("lamp, desk\nplant", "classes.txt:1 is 'lamp, desk': a line is one class, without commas"),
        ("", "classes.txt:1 is ''"),
        (
            "lamp\nplant\tpot",
            r"classes.txt:2 is 'plant\\tpot': a line is one class, without commas and tabs",
        ),
        ("lamp\n\ufeffplant", r"classes.txt:2 is '\\ufeffplant'"),
        ("lamp\nplant/ Lamp", "classes.txt:2 has 'lamp', as line 1: each word names one class"),
        ("background\nbackground", "classes.txt names no class"),
        (
            "\n".join(map(str, range(255))),
            "classes.txt has 255 lines: a truth map has room for 254 classes",
        ),
    ],
)
def test_a_malformed_class_list_is_refused(folder_root, lines, message):
    write(folder_root, {"classes.txt": lines})
    with pytest.raises(ValueError, match=message):
        benchmark("folder", folder_root)


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbfbackground\nlamp\n", b"background\r\nlamp\r\n\r\n", b" background\t\nlamp\n\n"],
)
def test_a_class_list_is_read_as_editors_write_it(folder_root, content):
    (folder_root / "classes.txt").write_bytes(content)
    chosen = benchmark("folder", folder_root)
    assert chosen.words() == ("lamp",) and chosen.background


def test_a_class_list_that_is_a_folder_or_in_another_encoding_is_named(folder_root):
    (folder_root / "classes.txt").write_bytes("lamp\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"classes.txt is not UTF-8 text: save it as UTF-8"):
        benchmark("folder", folder_root)
    (folder_root / "classes.txt").unlink()
    (folder_root / "classes.txt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"classes.txt is a folder"):
        benchmark("folder", folder_root)


@pytest.mark.real
def test_the_class_list_that_people_reported():
    root = SHARED / "faults" / "classes_bom" / "bom"
    if not root.is_dir():
        pytest.skip(f"{root} is absent")
    chosen = benchmark("folder", root)
    assert chosen.words()[0].isascii() and chosen.background == (
        "background" in (root / "classes.txt").read_text("utf-8")
    )


def test_an_id_without_a_line_is_refused(folder_root):
    write(folder_root, {"classes.txt": "lamp\nplant"})
    (sample,) = benchmark("folder", folder_root).samples(folder_root)
    with pytest.raises(
        ValueError, match=r"a.png holds id 2, which stands for no class: ids run to 1"
    ):
        sample.read_truth()


def test_a_folder_needs_its_root_and_its_list(folder_root):
    with pytest.raises(
        ValueError, match="folder takes its class list from its root: say where that is"
    ):
        benchmark("folder").words()
    (folder_root / "classes.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"classes.txt is missing: it names the classes, one a line"
    ):
        benchmark("folder", folder_root)


def test_other_benchmarks_are_the_same_at_any_root(tmp_path):
    for name in OWN_NAMES:
        assert benchmark(name, tmp_path) is BENCHMARKS[name]
        assert isinstance(benchmark(name), Benchmark)


@pytest.mark.real
def test_coco_mini_has_every_voc_class(shared_data):
    root = shared_data("coco-mini")
    samples = benchmark("coco-mini").samples(root)
    counts = sum(np.bincount(s.read_truth().ravel(), minlength=21) for s in samples)
    assert len(samples) == 159
    assert (counts > 0).all()
    assert counts[PERSON] == max(counts[:20])


@pytest.mark.real
def test_camvid_has_its_published_split(shared_data):
    root = shared_data("camvid")
    assert len(benchmark("camvid").samples(root)) == 101
    assert len(benchmark("camvid-train").samples(root)) == 367
    road = sum((s.read_truth() == 3).mean() for s in benchmark("camvid").samples(root)) / 101
    assert (
        0.2 < road < 0.4
    )  # the third of a street scene that is road; a shifted id map would show here

"""Benchmarks read small trees of their layouts; what does not fit is named before any model runs."""

import json

import numpy as np
import pytest
from PIL import Image

from maskfree.data.benchmarks import BENCHMARKS, CLASSES, IGNORE, Benchmark, IndexMaps, benchmark, files_sha256

WIDTH, HEIGHT = 12, 8
PERSON, DOG, LAPTOP = 14, 11, 20  # VOC ids; a laptop is no VOC class, hence background


def box(left, top, right, bottom):
    """Outline whose pixels are exactly the half-open box."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask):
    """Uncompressed COCO run lengths, column by column, starting with zeros."""
    flat = np.asarray(mask, dtype=bool).T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flat, [False]))))
    lengths = np.diff(np.concatenate(([0], edges, [flat.size])))
    return {"counts": lengths.tolist(), "size": list(np.shape(mask))}


@pytest.fixture
def coco_root(tmp_path):
    """Two photos: overlapping person, dog and laptop on the first, an RLE crowd on the second."""
    names = (CLASSES / "coco80.txt").read_text().splitlines()
    crowd = np.zeros((HEIGHT, WIDTH), dtype=bool)
    crowd[2:5, 3:9] = True
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in (7, 3)],
        "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": 7, "category_id": 10 * names.index("dog"), "area": 16, "segmentation": box(2, 2, 6, 6)},
            {"image_id": 7, "category_id": 10 * names.index("laptop"), "area": 4, "segmentation": box(3, 3, 5, 5)},
            {"image_id": 7, "category_id": 0, "area": 60, "segmentation": box(0, 1, 10, 7)},
            {"image_id": 3, "category_id": 0, "area": 18, "iscrowd": 1, "segmentation": runs(crowd)},
        ],
    }
    (tmp_path / "images").mkdir()
    for i in (3, 7):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / f"{i}.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def edit(root, change):
    path = root / "instances.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_smaller_object_is_on_top_and_other_categories_are_background(coco_root):
    first, second = benchmark("coco-mini").samples(coco_root)
    assert [first.photo.name, second.photo.name] == ["3.jpg", "7.jpg"]
    expected = np.full((HEIGHT, WIDTH), LAPTOP)
    expected[1:7, 0:10] = PERSON
    expected[2:6, 2:6] = DOG
    expected[3:5, 3:5] = LAPTOP
    assert np.array_equal(second.read_truth(), expected)


def test_an_rle_crowd_counts_as_its_class(coco_root):
    truth = benchmark("coco-mini").samples(coco_root)[0].read_truth()
    assert np.array_equal(truth == PERSON, np.pad(np.ones((3, 6), bool), ((2, 3), (3, 3))))


def test_compressed_rle_is_read_too(coco_root):
    from pycocotools import mask as coco

    expected = benchmark("coco-mini").samples(coco_root)[0].read_truth()

    def compress(content):
        annotation = content["annotations"][3]
        encoded = coco.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH)
        annotation["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode()}

    edit(coco_root, compress)
    assert np.array_equal(benchmark("coco-mini").samples(coco_root)[0].read_truth(), expected)


def test_all_eighty_classes_keep_their_own_order(coco_root):
    truth = benchmark("coco-mini-80").samples(coco_root)[1].read_truth()
    names = benchmark("coco-mini-80").words()
    assert [names[i] for i in (truth[0 + 1, 0], truth[2, 2], truth[3, 3])] == ["person", "dog", "laptop"]
    assert truth[0, 0] == 80


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "images" / "3.jpg").unlink(), "3.jpg is missing; the layout is images/"),
        (lambda root: (root / "instances.json").unlink(), "instances.json is missing"),
        (lambda root: (root / "instances.json").write_text("{]"), "is no COCO instance file"),
        (lambda root: edit(root, lambda c: c.pop("categories")), "is no COCO instance file: KeyError"),
        (lambda root: edit(root, lambda c: c["images"].clear()), "is no COCO instance file|names no photo"),
        (lambda root: edit(root, lambda c: c["categories"].pop(0)), "has no category 'person'"),
        (lambda root: Image.new("RGB", (5, 4)).save(root / "images" / "3.jpg"), "3.jpg is 5x4 but .* 12x8"),
        (lambda root: (root / "images" / "3.jpg").write_bytes(b"not a photo"), "3.jpg cannot be read as a photo"),
    ],
)
def test_a_spoilt_coco_tree_is_refused_in_one_line(coco_root, spoil, message):
    spoil(coco_root)
    with pytest.raises((ValueError, OSError), match=message) as raised:
        benchmark("coco-mini").samples(coco_root)
    assert "\n" not in str(raised.value)


def test_a_missing_root_names_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no folder; camvid needs val/images/\* and val/labels"):
        benchmark("camvid").samples(tmp_path / "nowhere")


def test_an_unknown_benchmark_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown benchmark 'coco': choose from coco-mini, "):
        benchmark("coco")


@pytest.fixture
def index_root(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(labels).save(tmp_path / "labels" / "a.png")
    Image.new("RGB", (4, 3)).save(tmp_path / "images" / "a.jpg")
    return tmp_path


def test_void_pixels_do_not_count(index_root):
    (sample,) = Benchmark("x", "", IndexMaps(void=11), {"plain": "camvid11"}).samples(index_root)
    assert sample.read_truth().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, IGNORE]]


def test_an_id_beyond_the_classes_is_named(index_root):
    (sample,) = Benchmark("x", "", IndexMaps(), {"plain": "camvid11"}).samples(index_root)
    with pytest.raises(ValueError, match=r"a.png holds id 11: ids run from 0 to 10"):
        sample.read_truth()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "labels" / "a.png").unlink(), "a.png is missing"),
        (lambda root: (root / "images" / "a.jpg").unlink(), "holds no photo"),
        (lambda root: Image.new("L", (3, 4)).save(root / "labels" / "a.png"), "a.jpg is 4x3 but a.png is 3x4"),
    ],
)
def test_a_spoilt_index_tree_is_refused(index_root, spoil, message):
    spoil(index_root)
    with pytest.raises((ValueError, OSError), match=message):
        Benchmark("x", "", IndexMaps(), {"plain": "camvid11"}).samples(index_root)


def test_a_colour_label_map_is_refused(index_root):
    Image.new("RGB", (4, 3)).save(index_root / "labels" / "a.png")
    (sample,) = Benchmark("x", "", IndexMaps(), {"plain": "camvid11"}).samples(index_root)
    with pytest.raises(ValueError, match="has mode RGB"):
        sample.read_truth()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_class_lists_have_one_name_per_class_and_no_word_twice(name):
    plain = benchmark(name).words()
    for name_set in benchmark(name).names:
        classes = benchmark(name).words(name_set)
        words = [word for line in classes for word in line.split("/")]
        assert len(classes) == len(plain)
        assert [line.split("/")[0] for line in classes] == list(plain)
        assert len(set(words)) == len(words)
        assert all(word == word.strip() and word for word in words)


def test_an_unknown_name_set_is_refused():
    with pytest.raises(ValueError, match="coco-mini-80 has no name set 'synonyms': choose from plain"):
        benchmark("coco-mini-80").words("synonyms")


def test_the_file_hash_tells_another_list_apart(coco_root):
    samples = benchmark("coco-mini").samples(coco_root)
    assert [sample.key for sample in samples] == ["images/3.jpg", "images/7.jpg"]
    assert files_sha256(samples) != files_sha256(samples[:1])
    assert files_sha256(samples) == files_sha256(benchmark("coco-mini").samples(coco_root))


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
    assert 0.2 < road < 0.4  # the third of a street scene that is road; a shifted id map would show here

"""COCO instance masks become one truth map; what does not fit is named before any model runs."""

import json

import numpy as np
import pytest
from PIL import Image
from trees import HEIGHT, WIDTH, coco_files, write

from maskfree.data.benchmarks import IGNORE, benchmark

PERSON, DOG, LAPTOP = 14, 11, 20  # VOC ids; a laptop is no VOC class, hence background


@pytest.fixture
def coco_root(tmp_path):
    return write(tmp_path, coco_files())


def edit(root, change):
    path = root / "instances.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def expected_truth(person, dog, laptop, nothing):
    truth = np.full((HEIGHT, WIDTH), nothing)
    truth[1:7, 0:10] = person
    truth[2:6, 2:6] = dog
    truth[3:5, 3:5] = laptop
    return truth


def test_the_smaller_object_is_on_top_and_other_categories_are_background(coco_root):
    first, second = benchmark("coco-mini").samples(coco_root)
    assert [first.photo.name, second.photo.name] == ["3.jpg", "7.jpg"]
    assert np.array_equal(second.read_truth(), expected_truth(PERSON, DOG, LAPTOP, 20))


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
    assert np.array_equal(truth, expected_truth(0, 16, 63, 80))


@pytest.mark.parametrize("photos", ["val2017", "images/val2017"])
def test_coco_object_lies_as_coco_is_published(tmp_path, photos):
    write(tmp_path / "coco", coco_files(photos, "annotations/instances_val2017.json"))
    samples = benchmark("coco-object").samples(tmp_path)
    assert [sample.key for sample in samples] == [f"{photos}/3.jpg", f"{photos}/7.jpg"]
    assert np.array_equal(samples[1].read_truth(), expected_truth(0, 16, 63, 80))


def test_where_the_background_is_unknown_the_rest_does_not_count(coco_root):
    layout = benchmark("coco-mini").layout
    truth = layout.samples(coco_root, benchmark("coco-mini").words(), IGNORE)[1].read_truth()
    assert np.array_equal(truth, expected_truth(PERSON, DOG, IGNORE, IGNORE))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "images" / "3.jpg").unlink(), "3.jpg is missing; coco-mini needs images/"),
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

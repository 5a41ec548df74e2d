"""COCO instance masks become one truth map; what does not fit is named before any model runs."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from trees import HEIGHT, WIDTH, coco_files, write

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.ops.ignore import IGNORE
from shared_folder import SHARED

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
        (
            lambda root: (root / "images" / "3.jpg").unlink(),
            "3.jpg is missing; coco-mini needs images/",
        ),
        (lambda root: (root / "instances.json").unlink(), "instances.json is missing"),
        (lambda root: (root / "instances.json").write_text("{]"), "instances.json is no JSON"),
        (
            lambda root: edit(root, lambda c: c.pop("categories")),
            "is no COCO instance file: it has no list 'categories'",
        ),
        (
            lambda root: edit(root, lambda c: c["images"].clear()),
            "is no COCO instance file|names no photo",
        ),
        (
            lambda root: edit(root, lambda c: c["categories"][0].update(name="human")),
            "has no category 'person'",
        ),
        (
            lambda root: Image.new("RGB", (5, 4)).save(root / "images" / "3.jpg"),
            "3.jpg is 5x4 but .* 12x8",
        ),
        (
            lambda root: (root / "images" / "3.jpg").write_bytes(b"not a photo"),
            "3.jpg cannot be read as a photo",
        ),
    ],
)
def test_a_spoilt_coco_tree_is_refused_in_one_line(coco_root, spoil, message):
    spoil(coco_root)
    with pytest.raises((ValueError, OSError), match=message) as raised:
        benchmark("coco-mini").samples(coco_root)
    assert "\n" not in str(raised.value)


def mask_of(root, photo=1):
    return benchmark("coco-mini").samples(root)[photo].read_truth()


def test_ids_may_be_strings_or_whole_floats(coco_root):
    expected = mask_of(coco_root)

    def as_floats(content):
        for annotation in content["annotations"]:
            annotation["image_id"] = float(annotation["image_id"])

    def as_strings(content):
        for entry in (*content["images"], *content["categories"]):
            entry["id"] = str(entry["id"])
        for entry in content["annotations"]:
            entry |= {
                "image_id": str(int(entry["image_id"])),
                "category_id": str(entry["category_id"]),
            }

    for change in (as_floats, as_strings):
        edit(coco_root, change)
        assert np.array_equal(mask_of(coco_root), expected)


def test_without_areas_the_order_is_that_of_the_masks(coco_root):
    expected = [mask_of(coco_root, photo) for photo in (0, 1)]
    edit(
        coco_root, lambda content: [annotation.pop("area") for annotation in content["annotations"]]
    )
    assert np.array_equal([mask_of(coco_root, photo) for photo in (0, 1)], expected)


def test_a_photo_without_a_size_has_its_own(coco_root):
    expected = mask_of(coco_root)
    edit(
        coco_root,
        lambda content: [(image.pop("width"), image.pop("height")) for image in content["images"]],
    )
    assert np.array_equal(mask_of(coco_root), expected)


def test_what_the_file_does_not_list_is_left_out_and_counted(coco_root, caplog):
    expected = mask_of(coco_root)
    mask_of(coco_root)
    assert not caplog.records
    edit(coco_root, lambda content: content["annotations"][3].update(image_id=99))
    Image.new("RGB", (5, 4)).save(coco_root / "images" / "z.png")
    (coco_root / "images" / "Thumbs.db").write_bytes(b"x")
    assert np.array_equal(mask_of(coco_root), expected)
    annotations, photos = (record.message for record in caplog.records[:2])
    assert annotations.endswith(
        "instances.json: 1 of its annotations belong to photos that it does not list: left out"
    )
    assert "does not list 1 of the photos in" in photos and "such as z.png" in photos


def set_annotation(**values):
    return lambda content: content["annotations"][0].update(values)


def set_image(**values):
    return lambda content: content["images"][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            set_annotation(id=5, image_id="7"),
            "annotation 5 has the image_id '7', but what it names has the id 7",
        ),
        (set_annotation(id="x", image_id=None), "annotation 'x' has no image_id"),
        (set_annotation(category_id=[1]), "annotation number 1 has no category_id"),
        (
            set_annotation(category_id=3),
            "annotation number 1 has the category_id 3, which is not among",
        ),
        (set_annotation(area="16"), "annotation number 1 has the area '16'"),
        (set_annotation(area=float("nan")), "annotation number 1 has the area nan"),
        (set_annotation(area=-1), "annotation number 1 has the area -1"),
        (
            set_annotation(id=5, segmentation=[[float("nan")] * 6]),
            "instances.json, annotation 5: a polygon has x = nan",
        ),
        (lambda c: c["annotations"].append(3), "number 5 of its annotations is no object"),
        (lambda c: c.update(annotations={}), "it has no list 'annotations'"),
        (set_image(id=3), "image 3 is there twice"),
        (set_image(id=None), "image None has no id"),
        (set_image(id=True), "image True has no id that is a number"),
        (set_image(file_name="3.jpg"), "it lists '3.jpg' twice"),
        (set_image(file_name="../instances.json"), "leads out of the folder of photos"),
        (set_image(file_name="/etc/passwd"), "leads out of the folder of photos"),
        (set_image(file_name="a\0.jpg"), "image 7 has no file_name that is a path"),
        (set_image(file_name="\ud800.jpg"), "image 7 has no file_name that is a path"),
        (set_image(file_name=7), "image 7 has no file_name that is a path"),
        (set_image(width="12"), "image 7 has the width '12' and the height 8"),
        (set_image(height=None), "image 7 has the width 12 and the height None"),
        (set_image(height=0), "and the height 0"),
        (set_image(width=10**12), "is 12x8 but instances.json says 1000000000000x8"),
        (
            lambda c: c["categories"].append({"id": 0, "name": "person"}),
            "category 0 is there twice",
        ),
        (lambda c: c["categories"].append({"id": 1}), "category 1 has no name"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_the_entry(coco_root, change, message):
    edit(coco_root, change)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        benchmark("coco-mini").samples(coco_root)
    assert "\n" not in str(raised.value) and "instances.json" in str(raised.value)


CAT = np.pad(np.full((40, 70), 15), ((10, 14), (10, 16)), constant_values=80)


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        (
            "coco_messages/image_id_string",
            "annotation 1 has the image_id '1', but what it names has the id 1",
        ),
        ("coco_messages/no_area", CAT),
        ("coco_no_size/no_width_height", CAT),
        ("coco_polygon_nan", "instances.json, annotation 1: a polygon has x = nan, far outside"),
        (
            "coco_rle_short/rle_counts_short",
            "annotation 1: its run lengths are 1920 pixels together",
        ),
        (
            "coco_rle_size/rle_other_size",
            "annotation 1: its run lengths are of the size [128, 192]",
        ),
        ("coco_segmentation_empty/empty_segmentation", np.full((64, 96), 80)),
        ("coco_segmentation_empty/segmentation_null", np.full((64, 96), 80)),
        (
            "coco_segmentation_empty/flat_polygon",
            "annotation 1: its segmentation is one list of numbers",
        ),
    ],
)
def test_the_faults_that_people_reported(tmp_path, folder, expected):
    if not (SHARED / "faults").is_dir():
        pytest.skip(f"{SHARED}/faults is absent")
    shutil.copytree(SHARED / "faults" / folder, tmp_path / "data")
    if not (tmp_path / "data" / "images").exists():
        shutil.copytree(
            SHARED / "faults" / "coco_messages" / "no_area" / "images", tmp_path / "data" / "images"
        )
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=re.escape(expected)):
            benchmark("coco-mini-80").samples(tmp_path / "data")
    else:
        (sample,) = benchmark("coco-mini-80").samples(tmp_path / "data")
        assert np.array_equal(sample.read_truth(), expected)

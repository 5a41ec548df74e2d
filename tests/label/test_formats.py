"""What the formats write, read by the rules that their documentation gives; needs no package."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from label.labeled_photos import (
    CLASSES,
    data_set,
    labeled_photo,
    labels_of,
    object_masks,
    with_regions,
)
from maskfree.label.formats.registry import FORMATS, write_format
from maskfree.label.formats.splits import is_validation
from maskfree.label.labeled import LabelClass, LabeledPhoto

BACKGROUND = CLASSES[-1]
WORDS = CLASSES[:-1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[LabeledPhoto]:
    return data_set(tmp_path_factory.mktemp("photos"))


def split_of(photo: LabeledPhoto, validation: str, train: str) -> str:
    return validation if is_validation(photo.name) else train


# Place of a photo's map, and the ids of the words, of the background and of unlabeled pixels.
MAPS: dict[str, tuple[Callable[[LabeledPhoto], str], tuple[int, ...], int, int]] = {
    "masks": (lambda photo: f"labels/{photo.name}.png", (0, 2, 4, 7), 8, 255),
    "voc": (
        lambda photo: f"SegmentationClass/{photo.name.replace(' ', '%20')}.png",
        (1, 2, 3, 4),
        0,
        255,
    ),
    "mmseg": (
        lambda photo: f"annotations/{split_of(photo, 'validation', 'training')}/{photo.name}.png",
        (0, 1, 2, 3),
        4,
        255,
    ),
    "ade": (
        lambda photo: f"annotations/{split_of(photo, 'validation', 'training')}/{photo.name}.png",
        (1, 2, 3, 4),
        5,
        0,
    ),
    "huggingface": (
        lambda photo: (
            f"{split_of(photo, 'validation', 'train')}/labels/"
            f"{photo.name.replace('__cache', '%5F_cache')}.png"
        ),
        (0, 1, 2, 3),
        4,
        255,
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_ids_that_the_format_asks_for(
    tmp_path: Path, photos: list[LabeledPhoto], name: str
):
    place, ids, background, unlabeled = MAPS[name]
    write_format(name, CLASSES, photos, tmp_path / "out")

    for photo in photos:
        expected = np.full(photo.labels.shape, unlabeled)
        for each, number in zip(CLASSES, [*ids, background], strict=True):
            expected[photo.labels == each.id] = number
        with Image.open(tmp_path / "out" / place(photo)) as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), expected)
            # A viewer shows the colors of the classes.
            colors = np.asarray(image.convert("RGB"))
        sky = photo.labels == CLASSES[0].id
        assert (colors[sky] == CLASSES[0].color).all()


def test_no_class_has_the_id_of_unlabeled_pixels(tmp_path: Path):
    # 300 classes and a label map of 16 bits.
    classes = tuple(
        LabelClass(number + (number >= 255), f"word {number}", (f"word {number}",), (1, 2, 3))
        for number in range(300)
    )
    labels = labels_of(np.random.default_rng(0), (200, 300), classes)
    path = tmp_path / "photo.png"
    Image.new("RGB", (300, 200)).save(path)
    photo = with_regions(path, "photo", labels, classes)

    for name, place in [("masks", "labels/photo.png"), ("huggingface", "train/labels/photo.png")]:
        write_format(name, classes, [photo], tmp_path / name)
        with Image.open(tmp_path / name / place) as image:
            assert image.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(image), labels)

    names = json.loads((tmp_path / "huggingface" / "id2label.json").read_text())
    assert len(names) == 301
    assert (names["254"], names["255"], names["256"]) == ("word 254", "unlabeled", "word 255")

    for name in ("voc", "mmseg", "ade"):
        with pytest.raises(ValueError, match="ids of 8 bits: 300"):
            write_format(name, classes, [photo], tmp_path / name)
        assert not (tmp_path / name).exists()

    # Formats of regions take any number.
    for name in ("coco", "yolo", "labelme", "cvat", "label-studio"):
        write_format(name, classes, [photo], tmp_path / name)
    read = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8"))
    assert read["names"][299] == "word 299"


def test_yolo_polygons_fill_exactly_the_pixels(tmp_path: Path, photos: list[LabeledPhoto]):
    write_format("yolo", CLASSES, photos, tmp_path / "out")
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text(encoding="utf-8"))
    assert data["names"] == {number: each.name for number, each in enumerate(WORDS)}

    for photo in photos:
        name = photo.name.replace("images/", "images_/")
        folder = data["val"] if is_validation(photo.name) else data["train"]
        assert len(list((tmp_path / "out" / folder).rglob("*.*")))
        text = tmp_path / "out" / folder.replace("images", "labels") / f"{name}.txt"

        drawn = {}
        for line in text.read_text().splitlines():
            number, *numbers = line.split()
            points = np.array(numbers, float).reshape(-1, 2) * (photo.width, photo.height)
            assert points.min() >= 0
            drawn.setdefault(int(number), []).append(points)
        masks = {
            WORDS[number].name: filled(points, photo.labels.shape)
            for number, points in drawn.items()
        }
        assert_same(masks, object_masks(photo))


def test_labelme_shapes_are_the_regions(tmp_path: Path, photos: list[LabeledPhoto]):
    write_format("labelme", CLASSES, photos, tmp_path / "out")

    kinds = set()
    for photo in photos:
        path = tmp_path / "out" / f"{photo.name}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        assert (path.parent / content["imagePath"]).is_file()
        assert (content["imageWidth"], content["imageHeight"]) == (photo.width, photo.height)

        masks: dict[str, np.ndarray] = {}
        for shape in content["shapes"]:
            kinds.add(shape["shape_type"])
            mask = np.zeros(photo.labels.shape, bool)
            if shape["shape_type"] == "mask":
                (left, top), (right, bottom) = shape["points"]
                with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
                    mask[top : bottom + 1, left : right + 1] = np.asarray(image)
            else:
                mask = filled([np.array(shape["points"])], photo.labels.shape)
            masks[shape["label"]] = masks.get(shape["label"], False) | mask
        expected = object_masks(photo)
        assert masks.keys() == expected.keys()
        for name, mask in expected.items():
            # Polygons have fewer points than the border has pixels.
            found = masks[name]
            assert (found & mask).sum() >= 0.98 * (found | mask).sum() or mask.sum() <= 100
    assert kinds == {"mask", "polygon"}


def test_cvat_masks_are_exactly_the_regions(tmp_path: Path, photos: list[LabeledPhoto]):
    write_format("cvat", CLASSES, photos, tmp_path / "out")

    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [each.text for each in root.iterfind("meta/task/labels/label/name")] == [
        each.name for each in WORDS
    ]
    images = root.findall("image")
    for photo, image in zip(photos, images, strict=True):
        assert (tmp_path / "out" / "images" / image.attrib["name"]).is_file()
        masks: dict[str, np.ndarray] = {}
        for shape in image.iterfind("mask"):
            numbers = {key: int(shape.attrib[key]) for key in ("left", "top", "width", "height")}
            runs = np.array(shape.attrib["rle"].split(","), int)
            values = np.repeat(np.arange(len(runs)) % 2, runs) > 0
            mask = np.zeros(photo.labels.shape, bool)
            rows = slice(numbers["top"], numbers["top"] + numbers["height"])
            columns = slice(numbers["left"], numbers["left"] + numbers["width"])
            mask[rows, columns] = values.reshape(numbers["height"], numbers["width"])
            masks[shape.attrib["label"]] = masks.get(shape.attrib["label"], False) | mask
        assert_same(masks, object_masks(photo))


def test_label_studio_masks_are_exactly_the_regions(tmp_path: Path, photos: list[LabeledPhoto]):
    write_format("label-studio", CLASSES, photos, tmp_path / "out")

    root = ElementTree.parse(tmp_path / "out" / "config.xml").getroot()
    assert [each.attrib["value"] for each in root.iter("Label")] == [each.name for each in WORDS]

    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text(encoding="utf-8"))
    for photo, task in zip(photos, tasks, strict=True):
        masks: dict[str, np.ndarray] = {}
        for result in task["predictions"][0]["result"]:
            assert result["score"] == 0.75
            [name] = result["value"]["brushlabels"]
            values = unpacked(bytes(result["value"]["rle"]))
            mask = values.reshape(*photo.labels.shape, 4)[:, :, 3] == 255
            masks[name] = masks.get(name, False) | mask
        assert_same(masks, object_masks(photo))


def test_voc_lists_name_every_map_and_photo(tmp_path: Path, photos: list[LabeledPhoto]):
    write_format("voc", CLASSES, photos, tmp_path / "out")
    lists = tmp_path / "out" / "ImageSets" / "Segmentation"

    def names(part: str) -> list[str]:
        return [
            line.strip() for line in (lists / f"{part}.txt").read_text(encoding="utf-8").split("\n")
        ][:-1]

    assert sorted(names("train") + names("val")) == sorted(names("trainval"))
    assert len(set(names("trainval"))) == len(photos)
    assert names("val")
    for name in names("trainval"):
        with (
            Image.open(tmp_path / "out" / "JPEGImages" / f"{name}.jpg") as photo,
            Image.open(tmp_path / "out" / "SegmentationClass" / f"{name}.png") as labels,
        ):
            assert photo.size == labels.size


def test_mmseg_finds_every_photo_and_its_map_by_their_suffixes(
    tmp_path: Path, photos: list[LabeledPhoto]
):
    write_format("mmseg", CLASSES, photos, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert settings["metainfo"]["classes"] == [each.name for each in CLASSES]
    assert settings["reduce_zero_label"] is False

    # As BaseSegDataset.load_data_list: all files with the suffix, in all folders.
    found = 0
    for split in ("training", "validation"):
        images = tmp_path / "out" / "images" / split
        for path in images.rglob("*" + settings["img_suffix"]):
            name = str(path.relative_to(images))[: -len(settings["img_suffix"])]
            assert (
                tmp_path / "out" / "annotations" / split / (name + settings["seg_map_suffix"])
            ).is_file()
            found += 1
    assert found == len(photos)


@pytest.mark.parametrize("name", FORMATS)
def test_every_photo_is_there_upright(tmp_path: Path, photos: list[LabeledPhoto], name: str):
    write_format(name, CLASSES, photos, tmp_path / "out")

    sizes = []
    for path in (tmp_path / "out").rglob("*"):
        is_map = any(part in ("labels", "annotations", "SegmentationClass") for part in path.parts)
        if path.suffix in (".jpg", ".png", ".bmp", ".webp") and not is_map:
            with Image.open(path) as image:
                assert image.getexif().get(0x0112, 1) == 1
                sizes.append(image.size)
    assert sorted(sizes) == sorted((photo.width, photo.height) for photo in photos)


@pytest.mark.parametrize("name", FORMATS)
def test_no_photos_and_no_background_are_a_data_set_too(tmp_path: Path, name: str):
    write_format(name, WORDS, [], tmp_path / "none")
    assert (tmp_path / "none").is_dir()

    write_format(name, WORDS, [labeled_photo(tmp_path, "plain", 3, WORDS)], tmp_path / "one")
    assert len(list((tmp_path / "one").rglob("plain.*"))) >= 1


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_photos_give_the_same_files(tmp_path: Path, photos: list[LabeledPhoto], name: str):
    for out in ("first", "second"):
        write_format(name, CLASSES, photos, tmp_path / out)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of all files, without the record of when they were written."""
    return {
        os.path.relpath(path, folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".maskfree-written"
    }


def filled(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Draw rings as OpenCV and Pillow do, with fractions cut off."""
    mask = np.zeros(size, bool)
    for ring in rings:
        picture = Image.new("1", (size[1], size[0]))
        points = [(int(x), int(y)) for x, y in ring]
        ImageDraw.Draw(picture).polygon(points, fill=1, outline=1)
        mask |= np.asarray(picture)
    return mask


def unpacked(packed: bytes) -> np.ndarray:
    """Decode the run lengths of Label Studio bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, width = take(32), take(5) + 1
    fields = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        assert take(1) == 1
        length = take(fields[take(2)]) + 1
        values += [take(width)] * length
    return np.array(values)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask, err_msg=name)

"""Every published layout as a small tree: which photos are read, and which value becomes which
class.
"""

import numpy as np
import pytest
from trees import size, write

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.ops.ignore import IGNORE

NOTHING = None  # in expected truth: no class


def check(name, root, values, expected):
    """The one sample under ROOT holds the EXPECTED names where its map holds VALUES."""
    chosen = benchmark(name)
    (sample,) = chosen.samples(root)
    words = chosen.words()
    ids = {name: i for i, name in enumerate(words)} | {NOTHING: len(words), IGNORE: IGNORE}
    truth = sample.read_truth()
    assert truth.shape == np.shape(values)
    assert truth.ravel().tolist() == [ids[name] for name in expected]
    return sample


VOC_VALUES = [[0, 1, 15], [20, 255, 16]]


def voc(root):
    files = {
        "SegmentationClass/2007_1.png": VOC_VALUES,
        "ImageSets/Segmentation/val.txt": "2007_1\n",
    }
    return write(root, files | {"JPEGImages/2007_1.jpg": (3, 2), "JPEGImages/2007_2.jpg": (5, 5)})


@pytest.mark.parametrize("folder", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_voc_counts_its_classes_from_one(tmp_path, folder):
    voc(tmp_path / folder)
    named = ("aeroplane", "person", "tv monitor", IGNORE, "potted plant")
    sample = check("voc21", tmp_path, VOC_VALUES, (NOTHING, *named))
    check("voc20", tmp_path, VOC_VALUES, (IGNORE, *named))
    assert sample.key == "JPEGImages/2007_1.jpg"


def test_the_training_part_of_voc_has_a_list_of_its_own(tmp_path):
    voc(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"Segmentation/train.txt is missing; voc-train needs JPEGImages"
    ):
        benchmark("voc-train").samples(tmp_path)


@pytest.mark.parametrize("name", ["Segmentation/trainaug", "SegmentationAug/train_aug"])
def test_the_training_part_of_voc_with_sbd_has_masks_of_its_own(tmp_path, name):
    voc(tmp_path)
    augmented = [[255, 2, 0], [1, 15, 20]]
    files = {"SegmentationClassAug/2007_2.png": augmented, f"ImageSets/{name}.txt": "2007_2\n"}
    write(tmp_path, files | {"JPEGImages/2007_2.jpg": (3, 2)})
    named = (IGNORE, "bicycle", NOTHING, "aeroplane", "person", "tv monitor")
    sample = check("voc-trainaug", tmp_path, augmented, named)
    assert sample.key == "JPEGImages/2007_2.jpg"


CONTEXT_PNG = [[0, 1, 2], [47, 59, 255]]
CONTEXT_MAT = [[0, 2, 9, 1], [368, 458, 255, 459]]
CONTEXT_IDS = dict(
    zip(
        (
            *(
                2,
                9,
                18,
                19,
                22,
                23,
                25,
                31,
                33,
                34,
                44,
                45,
                46,
                59,
                65,
                68,
                72,
                80,
                85,
                98,
                104,
                105,
                113,
                115,
                144,
            ),
            *(
                158,
                159,
                162,
                187,
                189,
                207,
                220,
                232,
                258,
                259,
                260,
                284,
                295,
                296,
                308,
                324,
                326,
                347,
                349,
                354,
                355,
            ),
            *(360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
        ),
        benchmark("context59").words(),
        strict=True,
    )
)


def test_context_reads_the_common_pngs(tmp_path):
    files = {
        "SegmentationClassContext/2008_1.png": CONTEXT_PNG,
        "ImageSets/SegmentationContext/val.txt": "2008_1\n",
    }
    write(tmp_path / "VOCdevkit/VOC2010", files | {"JPEGImages/2008_1.jpg": size(CONTEXT_PNG)})
    named = ("aeroplane", "bag", "sky", "wood", IGNORE)
    check("context60", tmp_path, CONTEXT_PNG, (NOTHING, *named))
    check("context59", tmp_path, CONTEXT_PNG, (IGNORE, *named))


@pytest.mark.parametrize(
    "split", ["ImageSets/SegmentationContext/val.txt", "ImageSets/Main/val.txt"]
)
def test_context_reads_the_original_mat_files(tmp_path, split):
    files = {
        "trainval/2008_1.mat": CONTEXT_MAT,
        split: "2008_1\n",
        "JPEGImages/2008_1.jpg": size(CONTEXT_MAT),
    }
    write(tmp_path, files)
    expected = (NOTHING, "aeroplane", "bag", NOTHING, "sofa", "wood", NOTHING, NOTHING)
    check("context60", tmp_path, CONTEXT_MAT, expected)
    check(
        "context59",
        tmp_path,
        CONTEXT_MAT,
        tuple(IGNORE if name is NOTHING else name for name in expected),
    )


def test_the_names_that_come_with_context_are_compared(tmp_path):
    files = {"trainval/2008_1.mat": CONTEXT_MAT, "ImageSets/Main/val.txt": "2008_1"}
    write(tmp_path, files | {"JPEGImages/2008_1.jpg": size(CONTEXT_MAT)})
    theirs = {1: "accordion"} | {
        value: name.replace(" ", "") for value, name in CONTEXT_IDS.items()
    }
    write(tmp_path, {"labels.txt": "\n".join(f"{value}: {name}" for value, name in theirs.items())})
    assert len(benchmark("context60").samples(tmp_path)) == 1
    write(
        tmp_path,
        {"labels.txt": "\n".join(f"{value - 1}: {name}" for value, name in theirs.items())},
    )
    with pytest.raises(
        ValueError, match=r"labels.txt calls value 2 'nothing', which is 'aeroplane' here"
    ):
        benchmark("context60").samples(tmp_path)


STUFF_VALUES = [[0, 1, 12], [91, 168, 181], [255, 148, 105]]
STUFF_NAMED = ("person", "bicycle", "stop sign", "banner", "tree", "wood", IGNORE, "road", "clouds")
STUFF_COARSE = [f"{name} things" for name in ("person", "vehicle", "outdoor")]
STUFF_COARSE += [f"{name} stuff" for name in ("textile", "plant", "solid")] + [
    IGNORE,
    "ground stuff",
    "sky stuff",
]
TRAIN_IDS = [[0, 1, 11], [80, 157, 170], [255, 137, 94]]


@pytest.mark.parametrize("photos", ["val2017", "images/val2017"])
@pytest.mark.parametrize("maps", ["stuffthingmaps/val2017", "annotations/val2017"])
def test_coco_stuff_is_off_by_one_and_has_holes(tmp_path, photos, maps):
    write(tmp_path / "coco", {f"{photos}/0001.jpg": (3, 3), f"{maps}/0001.png": STUFF_VALUES})
    check("coco-stuff", tmp_path, STUFF_VALUES, STUFF_NAMED)
    check("coco-stuff-27", tmp_path, STUFF_VALUES, STUFF_COARSE)


def test_converted_maps_of_coco_stuff_are_read_where_the_official_ones_are_absent(tmp_path):
    maps = "annotations/val2017/0001"
    write(tmp_path, {"images/val2017/0001.jpg": (3, 3), f"{maps}_labelTrainIds.png": TRAIN_IDS})
    check("coco-stuff", tmp_path, TRAIN_IDS, STUFF_NAMED)
    check("coco-stuff-27", tmp_path, TRAIN_IDS, STUFF_COARSE)
    write(tmp_path, {f"{maps}.png": STUFF_VALUES})
    check("coco-stuff", tmp_path, STUFF_VALUES, STUFF_NAMED)


def test_converted_maps_in_the_place_of_the_official_ones_are_refused(tmp_path):
    write(tmp_path, {"val2017/0001.jpg": (3, 3), "stuffthingmaps/val2017/0001.png": TRAIN_IDS})
    (sample,) = benchmark("coco-stuff").samples(tmp_path)
    with pytest.raises(ValueError, match=r"0001.png holds id 11, which stands for no class"):
        sample.read_truth()


def test_zero_in_ade20k_is_unlabeled_and_classes_count_from_one(tmp_path):
    values = [[0, 1, 2, 150]]
    files = {"images/validation/A_1.jpg": (4, 1), "annotations/validation/A_1.png": values}
    write(tmp_path / "ADEChallengeData2016", files)
    check("ade20k", tmp_path, values, (IGNORE, "wall", "building", "flag"))


def test_an_id_beyond_the_150_of_ade20k_is_refused(tmp_path):
    write(
        tmp_path, {"images/validation/A_1.jpg": (1, 1), "annotations/validation/A_1.png": [[151]]}
    )
    with pytest.raises(
        ValueError, match=r"A_1.png holds id 151, which stands for no class: ids run to 150"
    ):
        benchmark("ade20k").samples(tmp_path)[0].read_truth()


CITY = "val/bonn/bonn_1"


def test_cityscapes_maps_its_34_ids_to_19_classes(tmp_path):
    values = [[7, 8, 33, 0], [3, 26, 31, 29]]
    files = {
        f"leftImg8bit/{CITY}_leftImg8bit.png": size(values),
        f"gtFine/{CITY}_gtFine_labelIds.png": values,
    }
    write(tmp_path / "cityscapes", files)
    expected = ("road", "sidewalk", "bicycle", IGNORE, IGNORE, "car", "train", IGNORE)
    sample = check("cityscapes", tmp_path, values, expected)
    assert sample.key == f"leftImg8bit/{CITY}_leftImg8bit.png"


def test_cityscapes_train_ids_are_read_as_they_are_and_come_first(tmp_path):
    train_ids = [[0, 1, 18, 255], [7, 13, 16, 255]]
    files = {
        f"leftImg8bit/{CITY}_leftImg8bit.png": (4, 2),
        f"gtFine/{CITY}_gtFine_labelTrainIds.png": train_ids,
    }
    write(
        tmp_path,
        files
        | {f"gtFine/{CITY}_gtFine_labelIds.png": np.zeros((2, 4)), "gtFine/val/bonn/x.json": "{}"},
    )
    expected = ("road", "sidewalk", "bicycle", IGNORE, "traffic sign", "car", "train", IGNORE)
    check("cityscapes", tmp_path, train_ids, expected)


@pytest.mark.parametrize(("name", "part"), [("camvid", "val"), ("camvid-train", "train")])
@pytest.mark.parametrize(
    ("photos", "labels"), [("{}/images/1.jpg", "{}/labels/1.png"), ("{}/1.png", "{}annot/1.png")]
)
def test_camvid_has_eleven_classes_and_a_void(tmp_path, name, part, photos, labels):
    write(tmp_path / "CamVid", {photos.format(part): (3, 1), labels.format(part): [[0, 10, 11]]})
    check(name, tmp_path, [[0, 10, 11]], ("sky", "bicyclist", IGNORE))

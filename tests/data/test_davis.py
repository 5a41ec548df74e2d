"""DAVIS folders, and masks in all the ways that they are saved."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree.data.benchmarks.davis import find_sequences, read_masks, read_objects


def davis(root: Path, masks: dict[str, list], resolution: str = "480p") -> Path:
    """A DAVIS folder with a photo of each of the masks."""
    for name, frames in masks.items():
        for index, mask in enumerate(frames):
            mask = np.asarray(mask, np.uint8)
            photo = root / "JPEGImages" / resolution / name / f"{index:05d}.jpg"
            truth = root / "Annotations" / resolution / name / f"{index:05d}.png"
            photo.parent.mkdir(parents=True, exist_ok=True)
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", mask.shape[::-1], (90, 120, 60)).save(photo)
            Image.fromarray(mask).save(truth)
    return root


def test_sequences_and_lists(tmp_path: Path):
    one = [np.zeros((4, 6))] * 3
    root = davis(tmp_path, {"dog": one, "cat": one, "car": one})
    assert [each.name for each in find_sequences(root)] == ["car", "cat", "dog"]
    assert [path.name for path in find_sequences(root, ["dog"])[0].masks] == [
        "00000.png",
        "00001.png",
        "00002.png",
    ]
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("dog\ncar\n")
    (root / "ImageSets" / "2016.txt").write_text(
        "".join(
            f"/JPEGImages/480p/cat/{i:05d}.jpg /Annotations/480p/cat/{i:05d}.png\n"
            for i in range(3)
        )
    )
    assert [each.name for each in find_sequences(root, ["2017/val", "dog"])] == ["dog", "car"]
    assert [each.name for each in find_sequences(root, ["2016"])] == ["cat"]


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB"])
def test_masks_of_0_and_255(tmp_path: Path, mode: str):
    mask = np.zeros((5, 7), np.uint8)
    mask[1:3, 2:6] = 255
    picture = Image.fromarray(mask)
    if mode == "P":
        picture = Image.fromarray(mask, "L")
        picture.putpalette(bytes(768))
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_objects(tmp_path / "mask.png"), mask // 255)


def test_255_beside_objects_stays_what_it_is_in_later_masks_too(tmp_path: Path):
    several = davis(tmp_path / "2017", {"a": [[[0, 3, 255]], [[0, 0, 255]]]})
    single = davis(tmp_path / "2016", {"a": [[[0, 255, 0]], [[0, 0, 0]], [[255, 255, 0]]]})
    assert [mask.tolist() for mask in read_masks(find_sequences(several)[0])] == [
        [[0, 3, 255]],
        [[0, 0, 255]],
    ]
    assert [mask.tolist() for mask in read_masks(find_sequences(single)[0])] == [
        [[0, 1, 0]],
        [[0, 0, 0]],
        [[1, 1, 0]],
    ]


def test_what_is_no_mask(tmp_path: Path):
    Image.fromarray(np.full((3, 4), 300, np.uint16)).save(tmp_path / "many.png")
    Image.new("RGB", (4, 3), (250, 10, 10)).save(tmp_path / "colors.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, reason in (
        ("many", "object 300"),
        ("colors", "in colors"),
        ("text", "is not an image"),
    ):
        with pytest.raises(ValueError, match=reason) as raised:
            read_objects(tmp_path / f"{name}.png")
        assert "\n" not in str(raised.value)
    with pytest.raises(FileNotFoundError, match="no mask"):
        read_objects(tmp_path / "absent.png")


def test_what_is_no_davis_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no DAVIS folder"):
        find_sequences(tmp_path)
    root = davis(tmp_path, {"dog": [np.zeros((4, 6))] * 3})
    with pytest.raises(FileNotFoundError, match=r"no sequence 'cow'.*dog"):
        find_sequences(root, ["cow"])
    (root / "Annotations/480p/dog/00001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"dog has no mask .*00001.png"):
        find_sequences(root)


def test_a_mask_of_another_size(tmp_path: Path):
    root = davis(tmp_path, {"dog": [np.zeros((4, 6)), np.zeros((6, 4))]})
    with pytest.raises(ValueError, match="another size"):
        read_masks(find_sequences(root)[0])


def test_a_list_of_sequences_is_read_as_editors_write_it(tmp_path: Path):
    root = davis(tmp_path, {"dog": [np.zeros((4, 6))], "cat": [np.zeros((4, 6))]})
    listed = root / "ImageSets" / "2017" / "val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_bytes(b"\xef\xbb\xbfdog\r\n\r\n/JPEGImages/480p/cat/00000.jpg /x.png\r\n")
    assert [each.name for each in find_sequences(root, ["2017/val"])] == ["dog", "cat"]
    listed.write_text("\n")
    with pytest.raises(ValueError, match=r"val\.txt names no sequence"):
        find_sequences(root, ["2017/val"])

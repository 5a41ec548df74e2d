from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.testing import assert_array_equal
from PIL import Image

from maskfree.label.formats.registry import FORMATS
from maskfree.serve.exports import TITLES

LABELS = np.array([[0, 0, 1, 1, 1], [0, 2, 2, 255, 1], [2, 2, 2, 255, 255]], np.uint8)
COLORS = [[230, 159, 0], [86, 180, 233], [0, 0, 0]]


def runs_of(labels: np.ndarray) -> bytes:
    """Run lengths as the page writes them."""
    pairs: list[list[int]] = []
    for label in labels.ravel().tolist():
        if pairs and pairs[-1][0] == label:
            pairs[-1][1] += 1
        else:
            pairs.append([label, 1])
    return np.array(pairs, "<u4").tobytes()


def export(client: TestClient, photo: bytes, labels: np.ndarray = LABELS, **changes: Any) -> Any:
    height, width = labels.shape
    form = {
        "format": "png",
        "width": width,
        "height": height,
        "names": json.dumps(["dog", "sky", "background"]),
        "colors": json.dumps(COLORS),
        "background": 2,
    }
    runs = changes.pop("runs", runs_of(labels))
    name = changes.pop("name", "dir/a b.png")
    files = {"photo": (name, photo), "runs": ("runs", runs)}
    return client.post("/v1/export", data=form | changes, files=files)


def test_png_has_labels_colors_and_names(client: TestClient, png: bytes):
    answer = export(client, png)
    assert answer.status_code == 200
    with Image.open(io.BytesIO(answer.content)) as image:
        assert_array_equal(np.asarray(image), LABELS)
        assert np.array(image.getpalette()).reshape(-1, 3)[:3].tolist() == COLORS
        assert json.loads(image.info["names"]) == ["dog", "sky", "background"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"runs": b"1234567"}, "pairs of 32-bit numbers"),
        ({"runs": np.array([[0, 14]], "<u4").tobytes()}, "sum to 5x3 pixels"),
        ({"runs": np.array([[0, 2**32 - 1], [0, 16]], "<u4").tobytes()}, "sum to 5x3 pixels"),
        ({"runs": np.array([[3, 15]], "<u4").tobytes()}, "a label has no name"),
        ({"runs": np.array([[256, 15]], "<u4").tobytes()}, "a label has no name"),
        ({"names": "dog"}, "names: a JSON list"),
        ({"names": "[" * 100_000}, "names: a JSON list"),
        ({"names": "[]"}, "names: a list of 1 to 250 texts"),
        ({"names": '["dog", "dog", "sky"]'}, "once"),
        ({"names": '["dog", "s\\u0000ky", "sky"]'}, "texts"),
        ({"colors": "[[0, 0, 0]]"}, "colors: three numbers"),
        ({"colors": "[[0, 0, 0], [0, 0, 256], [0, 0, 0]]"}, "colors: three numbers"),
        ({"colors": "[[0, 0, 0], [0, 0, true], [0, 0, 0]]"}, "colors: three numbers"),
        ({"format": "psd"}, "the format 'psd' is unknown"),
        ({"width": 0}, "width"),
    ],
)
def test_what_does_not_fit_is_refused(
    client: TestClient, png: bytes, changes: dict[str, Any], reason: str
):
    answer = export(client, png, **changes)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]


def test_pixels_are_bounded(client: TestClient, png: bytes):
    answer = export(client, png, width=30_000, height=30_000)
    assert answer.status_code == 413


def files_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def upright() -> tuple[bytes, np.ndarray]:
    """A photo twice as large as its labels, stored on its side."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 6, 3), np.uint8)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif)
    return stream.getvalue(), LABELS.repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_masks_are_the_labels_at_the_photos_size(
    client: TestClient, upright: tuple[bytes, np.ndarray]
):
    mask_tools = pytest.importorskip("pycocotools.mask")
    photo, labels = upright
    answer = export(client, photo, format="coco")
    assert answer.headers["content-type"] == "application/zip"
    files = files_of(answer.content)
    (name,) = (name for name in files if name.endswith(".json"))
    told = json.loads(files[name])
    assert (told["images"][0]["width"], told["images"][0]["height"]) == (10, 6)
    classes = {each["id"]: each["name"] for each in told["categories"]}
    assert set(classes.values()) == {"dog", "sky"}
    drawn = np.full((6, 10), "", object)
    for each in told["annotations"]:
        rle = each["segmentation"]
        if isinstance(rle["counts"], list):
            rle = mask_tools.frPyObjects(rle, 6, 10)
        drawn[mask_tools.decode(rle).astype(bool)] = classes[each["category_id"]]
    assert_array_equal(drawn == "dog", labels == 0)
    assert_array_equal(drawn == "sky", labels == 1)


@pytest.mark.parametrize("name", [name for name in TITLES if name != "png"])
def test_every_format_of_the_page_is_written(client: TestClient, png: bytes, name: str):
    labels = np.zeros((57, 83), np.uint8)
    labels[10:30, 20:60], labels[40:, :] = 1, 2
    answer = export(client, png, labels, format=name)
    assert answer.status_code == 200, answer.text
    files = files_of(answer.content)
    assert any(Path(each).suffix in (".png", ".jpg") for each in files)
    assert b"sky" in b"".join(files.values())
    # Nothing of the server's folders, and no hidden record.
    assert not any(b"/tmp" in content for content in files.values() if content[:1] in b"{[<")
    assert not any(part.startswith((".", "/")) for each in files for part in Path(each).parts)


@pytest.mark.parametrize(
    "name", [100 * "\u5b57" + ".png", "a." + 98 * "\u5b57", "..", ".png", "a b."]
)
def test_every_name_of_a_photo_can_be_written(client: TestClient, png: bytes, name: str):
    labels = np.zeros((57, 83), np.uint8)
    answer = export(client, png, labels, name=name, format="yolo")
    assert answer.status_code == 200, answer.text
    for each in files_of(answer.content):
        assert not Path(each).is_absolute()
        assert ".." not in Path(each).parts


def test_a_background_that_does_not_occur_is_no_class(client: TestClient, png: bytes):
    labels = np.ones((57, 83), np.uint8)
    for background, expected in ((2, {"dog", "sky"}), (-1, {"dog", "sky", "background"})):
        answer = export(client, png, labels, format="coco", background=background)
        (name,) = (each for each in files_of(answer.content) if each.endswith(".json"))
        told = json.loads(files_of(answer.content)[name])
        assert {each["name"] for each in told["categories"]} == expected


def test_formats_of_the_page_are_those_of_maskfree_label(client: TestClient):
    offered = client.get("/v1/models").json()["formats"]
    assert {each["name"] for each in offered} - {"png"} < set(FORMATS)


def test_a_photo_of_another_shape_is_refused(client: TestClient):
    answer = export(client, b"no photo", format="coco")
    assert answer.status_code == 422
    assert "not an image" in answer.json()["error"]

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.testing import assert_array_equal
from PIL import Image

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
    files = {"photo": ("dir/a b.png", photo), "runs": ("runs", runs)}
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

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.testing import assert_array_equal

from maskfree.inference.segmenter import Segmenter
from maskfree.serve import label_studio
from maskfree.serve.label_config import parse_config
from maskfree.serve.label_studio_photos import LabelStudioPhotos
from maskfree.serve.limits import Access

CONFIG = """<View>
  <Image name="img" value="$photo" zoom="true"/>
  <Header value="Draw"/>
  <{0} name="area" toName="img">
    <Label value="dog" background="#f00"/>
    <Label value="sofa/couch"/>
    <Label value="Himmel" alias="sky"/>
  </{0}>
</View>"""
# With random weights everyday words may win everywhere; one word leaves something to the others.
RULE = "words:boat"
TOKEN, PERSONAL = "0123456789abcdef", "head.refresh.signature"


class FakeLabelStudio(BaseHTTPRequestHandler):
    """Hands out a photo to those who have a key."""

    photo = b""
    asked: list[tuple[str, str]] = []  # noqa: RUF012
    access = "access-1"

    def do_GET(self) -> None:
        key = self.headers.get("Authorization", "")
        self.asked.append((self.path, key))
        if self.path.startswith("/data/moved"):
            self.send_response(302)
            self.send_header("Location", "/data/upload/1/a.png")
            self.end_headers()
        elif key in (f"Token {TOKEN}", f"Bearer {self.access}") and "upload" in self.path:
            self.answer(200, self.photo)
        else:
            self.answer(401, b"no")

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_good = self.path == "/api/token/refresh/" and content == {"refresh": PERSONAL}
        self.answer(200 if is_good else 401, json.dumps({"access": self.access}).encode())

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _one_word_is_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_studio, "_RULE", RULE)


@pytest.fixture
def studio(png: bytes) -> Iterator[str]:
    FakeLabelStudio.photo, FakeLabelStudio.access = png, "access-1"
    FakeLabelStudio.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeLabelStudio) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def inline(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def body_of(*photos: object, tag: str = "BrushLabels") -> dict[str, Any]:
    """A request as Label Studio 1.23 sends it."""
    return {
        "tasks": [
            {
                "id": number,
                "data": {"photo": photo},
                "meta": {},
                "created_at": "2026-11-27T04:30:00.000000Z",
                "is_labeled": False,
                "project": 1,
                "annotations": [],
                "predictions": [],
            }
            for number, photo in enumerate(photos, 1)
        ],
        "project": "1.1795752000",
        "label_config": CONFIG.format(tag),
        "params": {"login": None, "password": None, "context": None},
    }


def unpacked(rle: list[int]) -> np.ndarray:
    """Decode Label Studio's packed bytes slowly: a stream of bits."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    number, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < number:
        is_run, size = take(1), sizes[take(2)]
        length = take(size) + 1
        values += [take(word)] * length if is_run else [take(word) for _ in range(length)]
    return np.array(values, np.uint8).reshape(-1, 4)


def test_brush_masks_are_those_of_the_model(client: TestClient, tiny: Segmenter, png: bytes):
    answer = client.post("/predict", json=body_of(inline(png), inline(png)))
    assert answer.status_code == 200
    told = answer.json()
    assert len(told["results"]) == 2
    expected = tiny(png, words=["dog", "sofa/couch", "sky"], background=RULE)
    assert {region.name for region in expected} > {"background"}
    for prediction in told["results"]:
        assert prediction["model_version"] == told["model_version"]
        assert 0 < prediction["score"] <= 1
        drawn = np.full((57, 83), 3)
        for region in prediction["result"]:
            assert (region["from_name"], region["to_name"]) == ("area", "img")
            assert (region["original_width"], region["original_height"]) == (83, 57)
            assert region["type"] == "brushlabels" and region["value"]["format"] == "rle"
            (label,) = region["value"]["brushlabels"]
            pixels = unpacked(region["value"]["rle"])
            assert (pixels == pixels[:, :1]).all() and set(pixels.ravel()) <= {0, 255}
            mask = pixels[:, 3].reshape(57, 83) > 0
            drawn[mask] = ["dog", "sofa/couch", "sky"].index(label)
        assert_array_equal(drawn, expected.labels)


def test_polygons_cover_the_regions(client: TestClient, tiny: Segmenter, png: bytes):
    from PIL import Image, ImageDraw

    answer = client.post("/predict", json=body_of(inline(png), tag="PolygonLabels"))
    (prediction,) = answer.json()["results"]
    scale = 8
    drawn = Image.new("L", (83 * scale, 57 * scale), 3)
    for region in prediction["result"]:
        assert region["type"] == "polygonlabels" and region["value"]["closed"]
        (label,) = region["value"]["polygonlabels"]
        points = [
            (x / 100 * 83 * scale, y / 100 * 57 * scale) for x, y in region["value"]["points"]
        ]
        ImageDraw.Draw(drawn).polygon(points, fill=["dog", "sofa/couch", "sky"].index(label))
    middle = np.asarray(drawn)[scale // 2 :: scale, scale // 2 :: scale]
    expected = tiny(png, words=["dog", "sofa/couch", "sky"], background=RULE).labels
    # Crumbs are left out.
    assert (middle == expected).mean() > 0.97


def test_health_setup_and_versions(client: TestClient):
    assert client.get("/health").json()["status"] == "UP"
    setup = {
        "project": "1.1795752000",
        "schema": CONFIG.format("BrushLabels"),
        "hostname": "http://169.254.169.254",
        "access_token": "x",
        "extra_params": None,
    }
    version = client.post("/setup", json=setup).json()["model_version"]
    assert version.startswith("tiny")
    assert client.get("/versions").json() == {"versions": [version]}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("no xml", "no XML"),
        ("<View/>", "no BrushLabels or PolygonLabels"),
        ("<View><BrushLabels toName='img'><Label value='a'/></BrushLabels></View>", "for an Image"),
        ("<View><Image name='img'/><BrushLabels toName='img'/></View>", "with labels"),
        ("<!DOCTYPE x [<!ENTITY a 'aaaa'>]><View>&a;</View>", "document type"),
        ("<View>" + 50_000 * "<a/>\n", "too long"),
    ],
)
def test_an_interface_without_labels_is_said(client: TestClient, config: str, reason: str):
    answer = client.post("/setup", json={"schema": config})
    assert answer.status_code == 422
    assert reason in answer.json()["error"]


def test_labels_are_words_and_spelled_as_in_the_interface():
    config = parse_config(CONFIG.format("BrushLabels").replace("dog", "dog, big"))
    assert config.labels == ("dog, big", "sofa/couch", "sky")
    assert config.words == ("dog big", "sofa/couch", "sky")
    assert (config.from_name, config.to_name, config.photo_key) == ("area", "img", "photo")


def test_one_bad_photo_keeps_the_others(client: TestClient, png: bytes):
    told = client.post("/predict", json=body_of("/data/x.png", inline(png), None, inline(b"x")))
    results = told.json()["results"]
    assert [bool(each["result"]) for each in results] == [False, True, False, False]
    assert "--label-studio" in results[0]["error"]
    alone = client.post("/predict", json=body_of("/data/x.png"))
    assert alone.status_code == 422


@pytest.mark.parametrize("key", [TOKEN, PERSONAL])
def test_photos_of_the_configured_studio_are_fetched_with_the_key(
    serving: Callable[..., TestClient], studio: str, png: bytes, key: str
):
    client = serving(Access(label_studio=studio, label_studio_key=key))
    photo = "/data/upload/1/a%20b.png?x=1"
    for reference in (photo, studio + photo):
        answer = client.post("/predict", json=body_of(reference))
        assert answer.status_code == 200
        assert answer.json()["results"][0]["result"]
    assert FakeLabelStudio.asked[-1][0] == photo


def test_an_access_token_is_renewed(studio: str, png: bytes):
    photos = LabelStudioPhotos(studio, PERSONAL, 10**6)
    assert photos.read("/data/upload/1/a.png") == png
    FakeLabelStudio.access = "access-2"
    assert photos.read("/data/upload/1/a.png") == png


@pytest.mark.parametrize(
    "reference",
    [
        "http://169.254.169.254/data/meta",
        "http://localhost:1/data/a.png",
        "https://{host}/data/a.png",
        "http://{host}@evil.example/data/a.png",
        "http://evil.example#@{host}/data/a.png",
        "//evil.example/data/a.png",
        "file:///data/a.png",
        "ftp://{host}/data/a.png",
        "/api/users",
        "/data/../api/users",
        "/data/%2e%2e/api/users",
        "/data/.%2E%2fapi/users",
        "/data/%252e%252e/api/users",
        "/data/..\\api/users",
        "/data/a.png HTTP/1.1\r\nHost: evil",
        "http://[bad/data/a.png",
        "",
    ],
)
def test_nothing_else_is_fetched(studio: str, reference: str):
    photos = LabelStudioPhotos(studio, TOKEN, 10**6)
    with pytest.raises(ValueError, match="fetched only from there"):
        photos.read(reference.format(host=studio.removeprefix("http://")))
    assert FakeLabelStudio.asked == []


def test_redirects_are_not_followed_and_sizes_are_bounded(studio: str, png: bytes):
    photos = LabelStudioPhotos(studio, TOKEN, 100)
    with pytest.raises(OSError, match="302"):
        photos.read("/data/moved/a.png")
    assert [path for path, _ in FakeLabelStudio.asked] == ["/data/moved/a.png"]
    with pytest.raises(ValueError, match="100 bytes are the most"):
        photos.read("/data/upload/a.png")
    with pytest.raises(OSError, match="401"):
        LabelStudioPhotos(studio, "wrong", 100).read("/data/upload/a.png")
    with pytest.raises(OSError, match="cannot be reached"):
        LabelStudioPhotos("http://127.0.0.1:1", "", 100).read("/data/upload/a.png")


@pytest.mark.parametrize("address", ["localhost:8080", "ftp://host", "http://", "//host"])
def test_an_address_that_is_none_is_refused(address: str):
    with pytest.raises(ValueError, match=r"must be http\(s\)://HOST:PORT"):
        LabelStudioPhotos(address, "", 100)


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b"\xff", b"[" * 10**5])
def test_an_answer_without_a_token_is_an_error_in_words(
    studio: str, monkeypatch: pytest.MonkeyPatch, content: bytes
):
    def post(request: FakeLabelStudio) -> None:
        request.rfile.read(int(request.headers["Content-Length"]))
        request.answer(200, content)

    monkeypatch.setattr(FakeLabelStudio, "do_POST", post)
    with pytest.raises(OSError, match="without a token"):
        LabelStudioPhotos(studio, PERSONAL, 10**6).read("/data/upload/1/a.png")


@pytest.mark.parametrize("key", ["secret\nkey", "secret\r", "geheim\u00e4", "two words"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_told(key: str):
    with pytest.raises(ValueError, match="key of Label Studio") as refused:
        LabelStudioPhotos("http://127.0.0.1:1", key, 100)
    assert "secret" not in str(refused.value)

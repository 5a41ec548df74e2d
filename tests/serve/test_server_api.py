from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.testing import assert_array_equal
from PIL import Image

from maskfree.inference.segmenter import Segmenter
from maskfree.serve.answers import run_lengths
from maskfree.serve.limits import Access, Limits
from maskfree.serve.models import Models, Wanted
from maskfree.serve.service import plain_name

Serving = Callable[..., TestClient]
WORDS = ["dog", "grass,sofa/couch"]


def ask(client: TestClient, content: bytes, path: str = "/v1/segment", **form: object):
    return client.post(path, files={"photo": ("a.png", content)}, data={"words": WORDS, **form})


def refusal(answer) -> str:
    """The error of an answer, which is one line of JSON."""
    assert answer.headers["content-type"] == "application/json"
    text = answer.json()["error"]
    assert text and "\n" not in text
    return text


def mask_of(rle: dict) -> np.ndarray:
    """Decode COCO's run lengths slowly."""
    height, width = rle["size"]
    values, inside = [], False
    for count in rle["counts"]:
        values += [inside] * count
        inside = not inside
    return np.array(values, bool).reshape(width, height).T


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, all of them black."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 10_000_000))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")


def test_png_is_the_label_map_of_the_model(client: TestClient, tiny: Segmenter, png: bytes):
    answer = ask(client, png)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert json.loads(unquote(answer.headers["x-maskfree-names"])) == ["dog", "grass", "sofa"]
    with Image.open(io.BytesIO(answer.content)) as image:
        labels = np.asarray(image)
    assert labels.shape == (57, 83)
    assert_array_equal(labels, tiny(png, words=WORDS).labels)
    assert len(np.unique(labels)) > 1


def test_json_has_regions_whose_masks_make_up_the_map(
    client: TestClient, tiny: Segmenter, png: bytes
):
    told = ask(client, png, format="json", background="threshold:0.3").json()
    expected = tiny(png, words=WORDS, background="threshold:0.3")
    assert (told["width"], told["height"]) == (83, 57)
    assert told["names"] == ["dog", "grass", "sofa", "background"]
    assert told["record"]["photo"]["name"] == "a.png"
    labels = np.full((57, 83), 99)
    for region, own in zip(told["regions"], expected, strict=True):
        mask = mask_of(region["rle"])
        assert (region["name"], region["box"]) == (own.name, list(own.box))
        assert region["area"] == pytest.approx(mask.mean())
        assert region["score"] == pytest.approx(own.score, abs=1e-4)
        labels[mask] = region["id"]
    assert_array_equal(labels, expected.labels)


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_those_of_every_mask(seed: int):
    labels = np.random.default_rng(seed).integers(0, 4, (5, 7)).astype(np.uint8)
    labels[labels == 2] = 1
    counts = run_lengths(labels, 4)
    for index in range(4):
        rle = {"size": [5, 7], "counts": counts[index]}
        assert_array_equal(mask_of(rle), labels == index)
        assert 0 not in rle["counts"][1:]


def test_options_reach_the_model(client: TestClient, models: Models, tiny: Segmenter, png: bytes):
    record = ask(
        client, png, format="json", model="closer", background="words:sky,sea", templates="plain"
    ).json()["record"]
    assert record["model"]["name"] == "closer"
    assert record["background"] == {"rule": "words:sky,sea", "id": 3}
    assert record["templates"] == ["{}"]
    assert record["resized"]["height"] == 96


@pytest.mark.parametrize("words", [["dog"], ["dog", "sofa/couch"], ["dog", "grass", "sky"]])
def test_few_words_compete_with_the_scene_as_in_segment(
    client: TestClient, tiny: Segmenter, png: bytes, words: list[str]
):
    told = ask(client, png, words=words, format="json").json()
    expected = tiny(png, words=words)
    rule = told["record"]["background"]
    assert rule == expected.record["background"]
    assert (rule is not None and rule["default"]) == (len(words) < 3)
    painted = np.zeros((57, 83), int)
    for region in told["regions"]:
        painted[mask_of(region["rle"])] = region["id"]
    assert_array_equal(painted, expected.labels)

    scores = ask(client, png, "/v1/scores", words=words).json()
    assert scores["background"] == rule
    assert len(scores["names"]) == len(words) + (rule is not None)
    assert (
        ask(client, png, words=words, background="none", format="json").json()["record"][
            "background"
        ]
        is None
    )


def test_scores_give_the_labels_without_the_network(
    client: TestClient, tiny: Segmenter, png: bytes
):
    import base64

    import torch
    from torch.nn import functional as F

    told = ask(client, png, "/v1/scores").json()
    shape = (len(told["names"]), told["rows"], told["columns"])
    raw = np.frombuffer(base64.b64decode(told["scores"]), "<f2").reshape(shape).astype(np.float32)
    chosen = tiny.with_words(WORDS)
    levels = np.array(told["levels"], np.float32)[:, None, None]
    # How large they are depends on the tokenizer, whose training orders ids by chance.
    assert levels.any()
    assert np.abs(raw - levels - chosen.score_map(png).numpy()).max() < 2e-3

    # The covered part, enlarged; under a threshold the levels do not count.
    rows, columns = (round(16 * side) for side in told["extent"])
    wide = F.interpolate(torch.from_numpy(raw)[None], scale_factor=16, mode="bilinear")[0]
    small = F.interpolate(wide[None, :, :rows, :columns], (57, 83), mode="bilinear")[0]
    expected = tiny(png, words=WORDS, background="threshold:-1").labels
    assert (small.argmax(0).numpy() == expected).mean() > 0.95


def test_requests_for_the_same_words_share_their_embeddings(models: Models):
    first = models.segmenter(Wanted("tiny", ("dog", "sky")))
    assert models.segmenter(Wanted("tiny", ("dog", "sky"))) is first
    assert models.segmenter(Wanted("closer", ("dog", "sky"))) is not first


def test_models_and_health(client: TestClient, tiny: Segmenter):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    told = client.get("/v1/models").json()["models"]
    assert [each["name"] for each in told] == ["tiny", "closer"]
    assert told[0]["patch_px"] == tiny.method.patch_size


def test_metrics_count_requests_by_route(client: TestClient, png: bytes):
    ask(client, png)
    ask(client, b"no photo")
    for path in ("/no", "/such", "/page"):
        assert client.get(path).status_code == 404
    for method in ("BREW", "DELETE", "WHEN"):
        assert client.request(method, "/v1/segment").status_code == 405
    text = client.get("/metrics").text
    assert "BREW" not in text and 'method="other",route="/v1/segment",status="405"} 3.0' in text
    line = 'maskfree_requests_total{method="POST",route="/v1/segment",status='
    assert f'{line}"200"}} 1.0' in text
    assert f'{line}"422"}} 1.0' in text
    assert 'route="other",status="404"} 3.0' in text
    assert 'maskfree_photos_total{model="tiny"} 1.0' in text


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 422, "empty"),
        (b"no photo at all", 422, "not an image"),
        (b"%PDF-1.7 anything", 422, "PDF"),
        (png_of_size(30_000, 30_000), 413, "25000000 pixels"),
    ],
    ids=["empty", "text", "pdf", "bomb"],
)
def test_a_photo_that_cannot_be_used_is_refused(
    client: TestClient, content: bytes, status: int, reason: str
):
    answer = ask(client, content)
    assert answer.status_code == status
    assert reason in refusal(answer)


def test_a_truncated_photo_is_refused(client: TestClient, png: bytes):
    answer = ask(client, png[: len(png) // 2])
    assert answer.status_code == 422
    assert "damaged" in refusal(answer)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"words": []}, "words"),
        ({"words": ["dog", "dog"]}, "repeated"),
        ({"words": [",".join(f"w{i}" for i in range(10_000))]}, "10000 classes"),
        ({"words": [f"w{i}" for i in range(13)]}, "12 are the most"),
        ({"words": ["dog"], "model": "none"}, "not loaded here: tiny, closer"),
        ({"words": ["dog"], "background": "threshold:7"}, "threshold"),
        ({"words": ["dog"], "templates": "none"}, "prompt set"),
        ({"words": ["dog"], "format": "gif"}, "format"),
        ({"words": ["dog\nsky"]}, "newline"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    client: TestClient, png: bytes, form: dict, reason: str
):
    answer = ask(client, png, **form)
    assert answer.status_code == 422
    assert reason in refusal(answer)


def test_ten_thousand_fields_of_words_are_refused(client: TestClient, png: bytes):
    answer = ask(client, png, words=[f"w{number}" for number in range(10_000)])
    assert answer.status_code in (400, 422)
    assert "field" in refusal(answer).lower()


def test_bytes_are_bounded_with_and_without_a_length(serving: Serving, png: bytes):
    client = serving(limits=Limits(max_bytes=1000))
    assert len(png) > 1000
    answer = ask(client, png)
    assert (answer.status_code, refusal(answer)) == (
        413,
        "the request is too large: 1000 bytes are the most",
    )
    pieces = (png[start : start + 100] for start in range(0, 5000, 100))
    kind = {"content-type": "multipart/form-data; boundary=x"}
    streamed = client.post("/v1/segment", content=pieces, headers=kind)
    assert "content-length" not in streamed.request.headers
    assert streamed.status_code == 413


def test_pixels_are_bounded(serving: Serving, png: bytes):
    answer = ask(serving(limits=Limits(max_pixels=83 * 57 - 1)), png)
    assert answer.status_code == 413
    assert f"{83 * 57 - 1} pixels" in refusal(answer)


def test_a_full_queue_says_when_to_come_back(serving: Serving, png: bytes):
    client = serving(limits=Limits(max_waiting=0))
    answer = ask(client, png)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "waiting" in refusal(answer)
    assert client.get("/readyz").status_code == 503


def test_time_is_bounded(serving: Serving, png: bytes, monkeypatch: pytest.MonkeyPatch):
    import time

    from maskfree.serve import batching

    monkeypatch.setattr(batching, "score_photos", lambda *_: time.sleep(1) or [])
    answer = ask(serving(limits=Limits(answer_seconds=0.2)), png)
    assert answer.status_code == 503
    assert "0.2 s" in refusal(answer)


def test_a_full_memory_is_said(client: TestClient, png: bytes, monkeypatch: pytest.MonkeyPatch):
    from torch import OutOfMemoryError

    from maskfree.serve import batching

    def fail(*_: object) -> None:
        raise OutOfMemoryError("CUDA out of memory at 0x7f")

    monkeypatch.setattr(batching, "score_photos", fail)
    answer = ask(client, png)
    assert answer.status_code == 503
    assert refusal(answer) == "the server has not enough memory for this"


def test_an_error_of_ours_is_no_news_to_the_client(
    client: TestClient, png: bytes, monkeypatch: pytest.MonkeyPatch
):
    from maskfree.serve import batching

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    with monkeypatch.context() as patched:
        patched.setattr(batching, "score_photos", fail)
        answer = ask(client, png)
        assert answer.status_code == 500
        assert "secret" not in refusal(answer)
    assert ask(client, png).status_code == 200


def test_a_token_is_asked_for(serving: Serving, png: bytes):
    client = serving(Access(token="s3cret"))
    for given in ("", "Bearer wrong", "Bearer", "s3cret", "Basic wrong", "Bearer s3cret2"):
        client.headers["authorization"] = given
        answer = ask(client, png)
        assert answer.status_code == 401
        assert "token" in refusal(answer)
        assert client.get("/metrics").status_code == 401
    assert client.get("/").status_code == client.get("/healthz").status_code == 200
    client.headers["authorization"] = "Bearer s3cret"
    assert ask(client, png).status_code == 200
    assert client.get("/v1/models", auth=("anybody", "s3cret")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "maskfree:8000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example:8000"}, 403),
        ({"host": ""}, 403),
        ({"host": "[::1"}, 403),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
    ],
)
def test_pages_of_others_cannot_use_a_local_server(
    client: TestClient, png: bytes, headers: dict[str, str], status: int
):
    answer = client.post(
        "/v1/segment", files={"photo": png}, data={"words": "dog"}, headers=headers
    )
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_names_of_the_server_are_its_own(serving: Serving):
    client = serving(Access(hosts=("Photos.example.org",)))
    for host, status in (("photos.example.org:8000", 200), ("x.photos.example.org", 403)):
        assert client.get("/v1/models", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a.png", "a.png"),
        ("a\nb\0.png", "ab.png"),
        ("\ud800.png", ".png"),
        ("/", "photo"),
        ("", "photo"),
        (300 * "a" + ".png", 96 * "a" + ".png"),
        (300 * "\u5b57" + ".png", 65 * "\u5b57" + ".png"),
    ],
)
def test_names_of_photos_are_made_harmless(given: str, kept: str):
    assert plain_name(given) == kept


def test_openapi_names_every_failure_and_its_page_needs_nothing_from_elsewhere(client: TestClient):
    described = client.get("/openapi.json").json()
    answers = described["paths"]["/v1/segment"]["post"]["responses"]
    assert {"200", "401", "403", "408", "413", "422", "429", "503"} <= set(answers)
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    page = client.get("/api")
    assert page.status_code == 200 and "http" not in page.text.replace("http-equiv", "")


@pytest.mark.parametrize("name", ["../site.py", "..%2Fsite.py", "%2e%2e/site.py", "page", ""])
def test_only_files_of_the_page_are_served(client: TestClient, name: str):
    assert client.get(f"/static/{name}").status_code == 404


def test_replaced_inference_is_another_model(models: Models, tiny: Segmenter):
    raw = models.segmenter(Wanted("tiny", ("dog",), levels=False))
    assert raw.inference == replace(tiny.inference, class_level=0.0)

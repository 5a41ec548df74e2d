"""A real Label Studio: a project, two photos, predictions, masks compared pixel by pixel.

`python3 -m venv ENV && ENV/bin/pip install label-studio` (1 GB), and MASKFREE_LABEL_STUDIO=ENV/bin.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from maskfree.hub import loading
from maskfree.serve.limits import Access, Limits
from maskfree.serve.models import Models
from maskfree.serve.run import listen, make_server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PROGRAMS = Path(os.environ.get("MASKFREE_LABEL_STUDIO", "/nowhere"))
EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTOS = ("pagoda.jpg", "rocket.jpg")
WORDS = ["building", "sky", "tree"]
USER, PASSWORD = "somebody@example.org", "correct-horse-9"
# It prepares its data base for minutes.
START_SECONDS = 400
CONFIG = """<View><Image name="image" value="$image"/>
<{0} name="label" toName="image">{1}</{0}></View>"""

# Label Studio's own decoder, which has packages that are not ours.
DECODE = """
import json, sys
from label_studio_sdk.converter.brush import decode_rle
for rle in json.load(sys.stdin):
    print(json.dumps(decode_rle(rle)[3::4].tolist()))
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Label Studio that was just installed."""
    program = PROGRAMS / "label-studio"
    if not program.is_file():
        pytest.skip("Label Studio is not here: set MASKFREE_LABEL_STUDIO to the folder of programs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    # It refuses backends at private addresses unless told otherwise.
    environment = os.environ | {
        "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path_factory.mktemp("studio")),
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "SENTRY_DSN": "",
        "COLLECT_ANALYTICS": "false",
    }
    command = [str(program), "start", "--no-browser", "--port", str(port)]
    command += ["--username", USER, "--password", PASSWORD]
    environment.pop("PYTHONPATH", None)
    log = tmp_path_factory.mktemp("log") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + START_SECONDS
        while not answers(address):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def session(studio: str) -> Iterator[Any]:
    """A client of a person who has logged in."""
    with httpx.Client(base_url=studio, timeout=120, headers={"Referer": studio}) as client:
        client.get("/user/login/")
        form = {"email": USER, "password": PASSWORD}
        form["csrfmiddlewaretoken"] = client.cookies["csrftoken"]
        assert client.post("/user/login/", data=form).status_code == 302
        client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
        yield client


@pytest.fixture(scope="module")
def backend(studio: str, session: Any) -> Iterator[str]:
    """Address of our server, which fetches photos with a personal access token."""
    key = session.post("/api/token/").json()["token"]
    access = Access(label_studio=studio, label_studio_key=key)
    server = make_server(Models({"pocket": loading.load("pocket", "cpu")}, 200), access, Limits())
    with listen("127.0.0.1", 0) as taken:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def predicted(session: Any, backend: str, tag: str) -> dict[str, Any]:
    """Newest prediction of each photo of a new project."""
    labels = "".join(f'<Label value="{word}"/>' for word in WORDS)
    project = {"title": tag, "label_config": CONFIG.format(tag, labels)}
    number = session.post("/api/projects", json=project).json()["id"]
    files = {name: (name, (EXAMPLES / name).read_bytes(), "image/jpeg") for name in PHOTOS}
    assert session.post(f"/api/projects/{number}/import", files=files).status_code == 201

    connected = session.post("/api/ml", json={"url": backend, "project": number, "title": "ours"})
    assert connected.status_code == 201, connected.text
    place = f"/api/dm/actions?id=retrieve_tasks_predictions&project={number}"
    chosen = {"selectedItems": {"all": True, "excluded": []}, "project": number}
    fetched = session.post(place, json=chosen)
    assert fetched.status_code == 200, fetched.text

    found = {}
    tasks = session.get(f"/api/tasks?project={number}&fields=all").json()["tasks"]
    for task in tasks:
        name = next(name for name in PHOTOS if name.split(".")[0] in task["data"]["image"])
        (found[name],) = task["predictions"]
    return found


def decoded(masks: list[list[int]]) -> list[np.ndarray]:
    """Masks as Label Studio's own code reads them."""
    ran = subprocess.run(
        [PROGRAMS / "python", "-c", DECODE],
        input=json.dumps(masks),
        capture_output=True,
        text=True,
        check=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    return [np.array(json.loads(line)) > 0 for line in ran.stdout.splitlines()]


def test_brush_masks_are_the_models_pixel_by_pixel(session: Any, backend: str):
    model = loading.load("pocket", "cpu")
    for name, prediction in predicted(session, backend, "BrushLabels").items():
        assert prediction["model_version"].startswith("pocket ")
        expected = model(EXAMPLES / name, words=WORDS, background="auto")
        regions = prediction["result"]
        masks = decoded([region["value"]["rle"] for region in regions])
        drawn = np.full(expected.labels.shape, len(WORDS))
        for region, mask in zip(regions, masks, strict=True):
            (label,) = region["value"]["brushlabels"]
            drawn[mask.reshape(drawn.shape)] = WORDS.index(label)
        assert_array_equal(drawn, expected.labels)
        assert len(regions) >= 2


def test_polygons_arrive(session: Any, backend: str):
    for prediction in predicted(session, backend, "PolygonLabels").values():
        assert prediction["result"]
        for region in prediction["result"]:
            points = np.array(region["value"]["points"])
            assert points.shape[0] >= 4 and points.min() >= 0 and points.max() <= 100

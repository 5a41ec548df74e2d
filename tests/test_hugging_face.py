"""Names at Hugging Face without a network, or with a wrong name: one question, one line.

Nothing leaves the machine.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import transformers
from huggingface_hub import constants

from maskfree.cli import main
from maskfree.files import hugging_face
from maskfree.hub import loading
from maskfree.hub.catalog import MODELS
from maskfree.nn.clip_weights import model_type
from maskfree.nn.configurations import read_configuration
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.pretrained import make_tower, read_classifier
from maskfree.text.tokenize import Tokenizer

READERS: dict[str, Callable[[str], object]] = {
    "configuration": lambda name: read_configuration("ViTConfig", name, {}),
    "tower": lambda name: make_tower("ViTModel", transformers.ViTConfig(), name),
    "classifier": lambda name: read_classifier(name, 1000),
    "kind": model_type,
    "tokenizer": Tokenizer.from_source,
    "image weights": lambda name: ImageEncoderConfig(weights=name).build(),
    "text weights": lambda name: TextEncoderConfig(weights=name).build(),
}
"""Everything that reads a name at Hugging Face."""

Answer = tuple[int, dict[str, str]]


@pytest.fixture(autouse=True)
def _nothing_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hugging_face, "_silent", {})


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`endpoint(url)` is where Hugging Face is looked for from then on."""

    def put(url: str) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return put


@pytest.fixture
def refused(endpoint: Callable[[str], None]) -> str:
    """An endpoint that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    endpoint(url)
    return url


@pytest.fixture
def server(endpoint: Callable[[str], None]) -> Iterator[Callable[[int, dict[str, str]], list[str]]]:
    """`server(status, headers)` answers every question so, and returns the list in which it notes
    them.
    """
    asked: list[str] = []
    answer: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            status, headers = answer[-1]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()

    def put(status: int, headers: dict[str, str]) -> list[str]:
        answer.append((status, headers))
        endpoint(f"http://127.0.0.1:{running.server_port}")
        return asked

    yield put
    running.shutdown()
    running.server_close()


def complaint(read: Callable[[str], object], name: str) -> str:
    with pytest.raises(FileNotFoundError) as raised:
        read(name)
    return str(raised.value)


@pytest.mark.parametrize("reader", READERS)
def test_switched_off(reader: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = complaint(READERS[reader], "someone/something")
    assert said.startswith(
        "'someone/something' is no folder and is not in the cache of Hugging Face's models, and "
    )
    assert (
        "HF_HUB_OFFLINE forbids to download it: try again with a network, or give the folder"
        in said
    )


@pytest.mark.parametrize("reader", READERS)
def test_refused_connection(reader: str, refused: str):
    said = complaint(READERS[reader], "someone/something")
    assert (
        "'someone/something' is no folder and is not in the cache of Hugging Face's models" in said
    )
    assert f"{refused} cannot be reached (" in said and "refused" in said


@pytest.mark.parametrize("reader", READERS)
def test_wrong_name(reader: str, server: Callable[..., list[str]]):
    asked = server(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
    said = complaint(READERS[reader], "someone/something")
    assert said.startswith(
        "'someone/something' is no folder, and Hugging Face has no model of that name"
    )
    assert len(asked) == 1


def test_name_that_cannot_be_one(refused: str):
    assert (
        complaint(Tokenizer.from_source, "a/b/c")
        == "'a/b/c' is no folder, and cannot be a name at Hugging Face"
    )


def test_gated_name(server: Callable[..., list[str]]):
    server(403, {"X-Error-Code": "GatedRepo"})
    assert "is gated at Hugging Face: accept its terms" in complaint(
        model_type, "someone/something"
    )


def test_server_with_an_error(server: Callable[..., list[str]]):
    asked = server(503, {})
    assert "answers with the status 503" in complaint(model_type, "someone/something")
    assert len(asked) == 1


def test_server_that_says_nothing(endpoint: Callable[[str], None], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hugging_face, "_LONGEST_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert "cannot be reached (" in complaint(model_type, "someone/something")
        assert time.monotonic() - began < 5


def test_every_published_name_without_a_network(refused: str, capfd: pytest.CaptureFixture[str]):
    began = time.monotonic()
    for name, source in ((entry.name, entry.source) for entry in MODELS.values() if entry.source):
        said = complaint(loading.load, name)
        assert said.startswith(
            f"the model {name!r} cannot be read: {source!r} is no folder and is not in the cache"
        )
    assert time.monotonic() - began < 10
    assert capfd.readouterr().err == ""  # not a line about another try


def test_the_command_says_one_line(refused: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        main(["segment", "examples/pagoda.jpg", "--words", "sky", "--model", "sclip"])
    assert raised.value.code == 2
    printed = capsys.readouterr().err
    assert (
        printed.startswith("maskfree: error: the model 'sclip' cannot be read: ")
        and printed.count("\n") == 1
    )


def test_what_is_cached_is_read_without_a_network(refused: str):
    snapshot = (
        Path(constants.HF_HUB_CACHE) / "models--someone--something" / "snapshots" / ("0" * 40)
    )
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "clip"}))
    reference = snapshot.parents[1] / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text("0" * 40)
    assert model_type("someone/something") == "clip"
    assert "is not in the cache" in complaint(model_type, "someone/else")

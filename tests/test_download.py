"""`maskfree download` from a Hub on this machine, and what loads afterwards without one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from maskfree.cli import main
from maskfree.files import hugging_face
from maskfree.hub import loading
from maskfree.hub.catalog import MODELS
from maskfree.hub.downloading import fetch
from tiny_published import save_clip

SOURCE = MODELS["naclip"].source
COMMIT = "1" * 40


@pytest.fixture
def served(
    tmp_path: Path, tiny_tokenizer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """A Hub with one tiny CLIP; `served("broken")` lets its weights end too early."""
    folder = tmp_path / "served"
    save_clip(folder, tiny_tokenizer)
    (folder / "pytorch_model.bin").write_bytes(b"second copy")
    (folder / "README.md").write_text("read me")
    state = {"broken": False}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            if self.path.startswith(f"/api/models/{SOURCE}"):
                body = json.dumps(listing(folder, self.path)).encode()
            elif (folder / name).is_file():
                body = (folder / name).read_bytes()
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.send_header("ETag", f'"{abs(hash(name)):x}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_body and state["broken"] and name == "model.safetensors":
                body = body[:100]
                self.close_connection = True
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{running.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hugging_face, "_silent", {})
    yield lambda kind: state.update(broken=kind == "broken")
    running.shutdown()
    running.server_close()


def listing(folder: Path, path: str) -> object:
    """What the Hub says of a model: its commit, or its files."""
    files = sorted(file.name for file in folder.iterdir())
    if "/tree/" in path:
        return [
            {"type": "file", "path": name, "oid": "0" * 40, "size": (folder / name).stat().st_size}
            for name in files
        ]
    return {
        "id": SOURCE,
        "sha": COMMIT,
        "siblings": [{"rfilename": name} for name in files],
        "private": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }


def test_downloaded_model_loads_offline(
    served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert not hugging_face.in_cache(SOURCE)
    with pytest.raises(SystemExit) as stopped:
        main(["download", "naclip"])
    assert not stopped.value.code
    assert f"naclip: {SOURCE}, with weights, in " in capsys.readouterr().out

    assert hugging_face.in_cache(SOURCE)
    (snapshot,) = (tmp_path / "cache").glob("models--*/snapshots/*")
    names = {file.name for file in snapshot.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"pytorch_model.bin", "README.md"}

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert loading.load("naclip").name == "naclip"
    with pytest.raises(SystemExit):
        main(["models"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "in the cache" in line] == [
        entry.name for entry in MODELS.values() if entry.source == SOURCE and not entry.also
    ]


def test_broken_download_is_one_line(
    served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    served("broken")
    with pytest.raises(SystemExit) as stopped:
        main(["download", "naclip"])
    said = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 2
    assert said.startswith(f"maskfree: error: the download of {SOURCE!r} broke off, and continues")
    assert not hugging_face.in_cache(SOURCE)

    served("whole")
    fetch("naclip")
    assert hugging_face.in_cache(SOURCE)


def test_only_the_tokenizer_of_a_file(served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "clip.safetensors").write_bytes(b"weights")
    said = fetch(f"naclip:{tmp_path / 'clip.safetensors'}")
    assert said.startswith(f"{SOURCE}, its tokenizer, in ")
    assert not hugging_face.in_cache(SOURCE)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "needs no download" in fetch(f"naclip:{tmp_path / 'clip.safetensors'}")
    assert "needs no download" in fetch("pocket")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no model was given: one of pocket, "),
        (["naclips:a/b"], "there is no method 'naclips': one of "),
        (["naclip"], f"{SOURCE!r} cannot be downloaded: HF_HUB_OFFLINE forbids"),
        (["ovsegmentor"], "'bert-base-uncased' cannot be downloaded: HF_HUB_OFFLINE forbids"),
        (["nothing"], "the model 'nothing' is unknown: pocket, "),
    ],
)
def test_what_cannot_be_downloaded(
    names: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as stopped:
        main(["download", *names])
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and printed.count("\n") == 1 and said in printed


def test_option_offline_forbids_downloads(
    served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "examples/pagoda.jpg", "--words", "sky", "--model", "naclip", "--offline"])
    assert stopped.value.code == 2 and "HF_HUB_OFFLINE forbids" in capsys.readouterr().err
    assert constants.HF_HUB_OFFLINE


def test_second_encoder_is_fetched_too(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(
        hugging_face, "download", lambda source, weights=True: asked.append(source) or Path(source)
    )
    assert "facebook/dino-vitb8" in fetch("proxyclip")
    assert asked == [MODELS["proxyclip"].source, "facebook/dino-vitb8"]

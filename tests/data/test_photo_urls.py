"""Photos at web addresses, from a server of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfree.data import photo_urls
from maskfree.data.photo import photo_name, read_photo


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Address of a server that gives the files of `tmp_path`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_photo_at_an_address_is_the_photo_in_the_file(tmp_path: Path, address: str):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "my cat.png")

    found = read_photo(f"{address}/my%20cat.png?size=large")
    assert (np.asarray(found) == pixels).all()


def test_name_is_that_of_the_file():
    assert photo_name("https://a.org/b/my%20cat.png?size=2#top") == "my cat.png"
    assert photo_name("https://a.org/..%2F..%2Fb.png") == "b.png"
    assert photo_name("https://a.org/") == "photo"


def test_address_without_a_photo_is_refused_in_one_line(tmp_path: Path, address: str):
    (tmp_path / "page.html").write_text("<html></html>")
    with pytest.raises(OSError, match=r"none\.png cannot be read: the server answers 404"):
        read_photo(f"{address}/none.png")
    with pytest.raises(ValueError, match=r"page\.html"):
        read_photo(f"{address}/page.html")


def test_address_without_a_server_is_refused_in_one_line(address: str):
    for wrong in ("http://127.0.0.1:1/a.png", "http://127.0.0.1:port/a.png", "http://"):
        with pytest.raises(OSError, match="cannot be read") as caught:
            read_photo(wrong)
        assert "\n" not in str(caught.value)


def test_file_that_is_too_large_is_not_read_whole(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(photo_urls, "_MAX_BYTES", 2**20)
    (tmp_path / "large.png").write_bytes(bytes(2**20 + 1))
    with pytest.raises(ValueError, match="is larger than 1 MiB"):
        read_photo(f"{address}/large.png")

"""Shards and partners at addresses: ranges, lost connections, servers without ranges."""

from __future__ import annotations

import http.server
import itertools
import re
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from PIL import Image
from shard_files import captioned, pairs, write_index, write_tar
from test_loader import KeyTransform

from maskfree.data import remote_files
from maskfree.data.config import DataConfig
from maskfree.data.entities import index as index_module
from maskfree.data.entities.keys import fingerprint
from maskfree.data.loader import Stream
from maskfree.data.order import Share
from maskfree.data.remote_files import RemoteFile, read_at, size_of
from maskfree.data.shards import find_shards, read_shards


@contextmanager
def served(folder: Path, *, ranges: bool = True, drop_after: int | None = None, busy: int = 0):
    """Serve a folder; connections end after some bytes, and the first answers are 503."""
    answers: Counter[str] = Counter()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            answers["all"] += 1
            if answers["all"] <= busy:
                self.send_error(503)
                return
            path = folder / self.path.lstrip("/").partition("?")[0]
            if not path.is_file():
                self.send_error(404)
                return

            content = path.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if ranges and asked:
                start, end = int(asked[1]), int(asked[2] or len(content) - 1)
                part = content[start : end + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            else:
                part = content
                self.send_response(200)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[:drop_after])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(remote_files, "_WAITS_S", (0.0, 0.0, 0.0))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_lost_connection_goes_on_where_it_was(tmp_path, ranges):
    content = bytes(range(256)) * 40
    (tmp_path / "x").write_bytes(content)
    # Without ranges the start comes again each time, so the drop must lie beyond half.
    drop = 3000 if ranges else None
    with served(tmp_path, ranges=ranges, drop_after=drop) as (url, answers):
        file = RemoteFile(f"{url}/x")
        read = b"".join(iter(lambda: file.read(700), b""))
        file.close()
    assert read == content
    assert (answers["all"] > 3) == ranges


def test_shards_survive_lost_connections_and_busy_servers(tmp_path):
    write_tar(tmp_path / "a.tar", pairs("uvw"))
    with served(tmp_path, drop_after=4000, busy=2) as (url, answers):
        examples = list(read_shards([f"{url}/a.tar"]))
    local = list(read_shards([str(tmp_path / "a.tar")]))
    assert [(e.key, e.photo, e.problem) for e in examples] == [
        (e.key, e.photo, e.problem) for e in local
    ]
    assert answers["all"] > 3


def test_attempts_end_and_final_answers_are_not_repeated(tmp_path):
    with served(tmp_path, busy=99) as (url, answers):
        with pytest.raises(OSError, match="503"):
            RemoteFile(f"{url}/x").read(5)
        assert answers["all"] == 4
    with served(tmp_path) as (url, answers):
        with pytest.raises(OSError, match="404"):
            RemoteFile(f"{url}/x").read(5)
        assert answers["all"] == 1


def test_pieces_and_fingerprints_are_those_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("maskfree.data.entities.keys._WHOLE", 1000)
    content = bytes(range(256)) * 40
    (tmp_path / "x.tar").write_bytes(content)
    with served(tmp_path) as (url, _):
        assert read_at(f"{url}/x.tar", 300, 17) == content[300:317]
        assert size_of(f"{url}/x.tar") == len(content)
        assert fingerprint(f"{url}/x.tar?sig=1/2") == fingerprint(tmp_path / "x.tar")


@pytest.fixture
def indexed(tmp_path):
    texts = ["a dog", "two dogs", "a cat", "a dog and a cat", "a bus", "a bus and a cat"]
    folder = tmp_path / "shards"
    for shard, part in (("a", texts[:3]), ("b", texts[3:])):
        keys = [f"{shard}{number}" for number in range(3)]
        photos = [Image.new("RGB", (40, 30), (60 * number, 90, 90)) for number in range(3)]
        write_tar(folder / f"{shard}.tar", captioned(keys, photos, part))
    write_index(folder, tmp_path / "index")
    return folder, tmp_path / "index"


def test_partners_come_from_addresses_as_from_a_disk(indexed):
    folder, index = indexed

    def seen(shards: str) -> list[tuple[str, ...]]:
        data = DataConfig(shards=(shards,), index=str(index), workers=0, shuffle_buffer=2)
        batches = iter(Stream(data, KeyTransform(True), 3, 5, Share(0, 1)))
        return [batch.batch.keys for batch in itertools.islice(batches, 4)]

    with served(folder, busy=2) as (url, _):
        remote = seen(f"{url}/{{a,b}}.tar?sig=x/y")
    assert remote == seen(str(folder))
    assert all(key.count(":") == 3 for keys in remote for key in keys)


def test_a_server_without_ranges_is_refused_before_the_first_step(indexed):
    folder, index = indexed
    with served(folder, ranges=False) as (url, _):
        data = DataConfig(shards=(f"{url}/{{a,b}}.tar",), index=str(index), workers=0)
        with pytest.raises(ValueError, match="whole files only") as raised:
            Stream(data, KeyTransform(True), 3, 5, Share(0, 1))
    assert "\n" not in str(raised.value)


def test_only_the_first_process_reads_fingerprints(indexed, monkeypatch):
    folder, index = indexed
    data = DataConfig(shards=(str(folder),), index=str(index), workers=0)
    read = []
    monkeypatch.setattr(index_module, "fingerprint", lambda shard: read.append(shard))
    Stream(data, KeyTransform(True), 3, 5, Share(1, 2))
    assert not read
    with pytest.raises(ValueError, match="has changed"):
        Stream(data, KeyTransform(True), 3, 5, Share(0, 2))
    assert len(read) == 1


def test_buckets_are_read_by_fsspec(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", pairs("uvw"))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/a.tar", (tmp_path / "a.tar").read_bytes())
    monkeypatch.setattr(
        remote_files, "_filesystem", lambda name: (memory, name.removeprefix("s3:/"))
    )
    shards = find_shards(["s3://bucket/{a,}.tar"])[:1]
    assert [example.key for example in read_shards(shards)] == list("uvw")
    assert read_at("s3://bucket/a.tar", 3, 9) == (tmp_path / "a.tar").read_bytes()[3:12]
    assert fingerprint("s3://bucket/a.tar") == fingerprint(tmp_path / "a.tar")
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(scheme, package, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(remote_files, "_filesystem", missing)
    with pytest.raises(ValueError, match=f"pip install {package}"):
        find_shards([f"{scheme}://bucket/a.tar"])


def test_fewer_shards_than_streams_are_told_with_the_factor(tmp_path, caplog):
    for name in "abc":
        write_tar(tmp_path / f"{name}.tar", pairs([name]))
    data = DataConfig(shards=(str(tmp_path),), workers=2)
    Stream(data, KeyTransform(), 3, 5, Share(0, 1))
    assert not caplog.records
    Stream(data, KeyTransform(), 3, 5, Share(0, 4))
    assert "3 shards are fewer than the 8 data streams" in caplog.text
    assert "8 times" in caplog.text and len(caplog.records) == 1
    Stream(data, KeyTransform(), 3, 5, Share(1, 4))
    assert len(caplog.records) == 1

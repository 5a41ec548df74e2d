"""A server that runs: shared forward passes, slow and vanishing clients, overload, signals."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from maskfree import cli
from maskfree.inference.segmenter import Segmenter
from maskfree.serve import batching
from maskfree.serve.limits import Access, Limits
from maskfree.serve.models import Models
from maskfree.serve.run import check_access, is_loopback, listen, make_server

Start = Callable[..., int]
BOUNDARY = "boundary"


def body_of(content: bytes, words: str = "dog,sky") -> bytes:
    """A multipart form with a photo and words."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="words"\r\n\r\n{words}\r\n'
    file = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
    return (head + file).encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def head_of(length: int) -> bytes:
    """Head of a request with such a body."""
    return (
        "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def post(port: int, content: bytes, words: str = "dog,sky") -> tuple[int, bytes, str]:
    """Status, content and Retry-After of an answer."""
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/v1/segment", body_of(content, words), {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("retry-after", "")


def get(port: int, path: str) -> str:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


@pytest.fixture
def start(models: Models) -> Iterator[Start]:
    """`start(Limits(...))` is the port of a server that runs in a thread."""
    running = []

    def begin(limits: Limits) -> int:
        server = make_server(models, Access(), limits)
        taken = listen("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        running.append((server, thread, taken))
        while not server.started:
            time.sleep(0.01)
        return taken.getsockname()[1]

    yield begin
    for server, thread, taken in running:
        server.should_exit = True
        thread.join()
        taken.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """A forward pass begins when it is released; `sizes` of the batches are noted, and `begun`
    those that stand before it.
    """
    semaphore = threading.Semaphore(0)
    score, sizes, begun = batching.score_photos, [], []

    def wait(segmenter, photos):
        begun.append(len(photos))
        semaphore.acquire()
        sizes.append(len(photos))
        return score(segmenter, photos)

    monkeypatch.setattr(batching, "score_photos", wait)
    semaphore.sizes = sizes  # pyright: ignore[reportAttributeAccessIssue]
    semaphore.begun = begun  # pyright: ignore[reportAttributeAccessIssue]
    return semaphore


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until, "it did not happen within 10 s"
        time.sleep(0.01)


def waiting(port: int) -> int:
    line = next(x for x in get(port, "/metrics").splitlines() if x.startswith("maskfree_waiting"))
    return round(float(line.split()[1]))


def photo_of(seed: int, size: tuple[int, int] = (60, 44)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(stream, "PNG")
    return stream.getvalue()


def test_photos_of_one_size_share_a_forward_pass(
    start: Start, gate: threading.Semaphore, tiny: Segmenter
):
    port = start(Limits(max_batch=3))
    # The first one is alone; meanwhile five of its size queue up, with one of another size and one
    # with other words among them.
    photos = [photo_of(seed) for seed in range(6)]
    photos.insert(3, photo_of(9, (44, 60)))
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(post, port, photos[0])]
        wait_until(lambda: gate.begun == [1])  # pyright: ignore[reportAttributeAccessIssue]
        for number, photo in enumerate(photos[1:], 2):
            answers.append(clients.submit(post, port, photo))
            wait_until(lambda number=number: waiting(port) == number)
        other = clients.submit(post, port, photos[0], "dog,grass")
        wait_until(lambda: waiting(port) == 8)
        gate.release(20)
    assert sorted(gate.sizes) == [1, 1, 1, 2, 3]  # pyright: ignore[reportAttributeAccessIssue]

    for photo, answer in zip(photos, answers, strict=True):
        status, content, _ = answer.result()
        assert status == 200
        labels = np.asarray(Image.open(io.BytesIO(content)))
        alone = tiny(photo, words=["dog", "sky"]).labels
        assert (labels == alone).mean() > 0.999
    labels = np.asarray(Image.open(io.BytesIO(other.result()[1])))
    assert_array_equal(labels, tiny(photos[0], words=["dog", "grass"]).labels)


def test_no_request_is_lost_at_overload(start: Start, png: bytes):
    port = start(Limits(max_waiting=4))
    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(lambda _: post(port, png), range(96)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 429}
    assert len(statuses) == 96
    assert all(int(after) >= 1 for status, _, after in answers if status == 429)
    assert waiting(port) == 0


def test_a_slow_client_is_told_and_keeps_nobody_waiting(start: Start, png: bytes):
    port = start(Limits(body_seconds=0.6))
    body = body_of(png)
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(head_of(len(body)) + body[:100])
        assert post(port, png)[0] == 200
        answer = b""
        while part := slow.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 0.6 s" in answer
    assert post(port, png)[0] == 200


def test_an_upload_that_breaks_off_leaves_nothing(start: Start, png: bytes):
    port = start(Limits())
    body = body_of(png)
    with socket.create_connection(("127.0.0.1", port)) as leaving:
        leaving.sendall(head_of(len(body)) + body[:-100])
    wait_until(lambda: "maskfree_open_requests 1.0" in get(port, "/metrics"))
    assert waiting(port) == 0
    assert post(port, png)[0] == 200


def test_a_cancelled_request_leaves_the_queue(start: Start, gate: threading.Semaphore, png: bytes):
    port = start(Limits())
    with ThreadPoolExecutor(1) as client:
        first = client.submit(post, port, png)
        wait_until(lambda: gate.begun == [1])  # pyright: ignore[reportAttributeAccessIssue]
        body = body_of(png, "sky,dog")
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            leaving.sendall(head_of(len(body)) + body)
            wait_until(lambda: waiting(port) == 2)
        wait_until(lambda: waiting(port) == 1)
        gate.release(5)
        assert first.result()[0] == 200
    assert gate.sizes == [1]  # pyright: ignore[reportAttributeAccessIssue]


def test_sigterm_finishes_what_is_under_way(tiny_checkpoint: Path, photo, tmp_path: Path):
    stream = io.BytesIO()
    photo((3000, 2000)).save(stream, "PNG")
    command = [sys.executable, "-m", "maskfree", "serve", "--port", "0", "--models"]
    server = subprocess.Popen(
        [*command, str(tiny_checkpoint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    with server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            port = int(line.split("127.0.0.1:")[1].split("/")[0])
            assert get(port, "/readyz") == '{"status":"ready"}'
            with ThreadPoolExecutor(1) as client:
                answer = client.submit(post, port, stream.getvalue())
                wait_until(lambda: waiting(port) == 1)
                server.send_signal(signal.SIGTERM)
                assert answer.result()[0] == 200
            _, error = server.communicate(timeout=30)
        finally:
            with suppress(ProcessLookupError):
                server.kill()
    assert server.returncode == 128 + signal.SIGTERM
    assert error.startswith("maskfree: stopped by SIGTERM: requests under way were answered;")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.3.4.5", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("example.org", False),
    ],
)
def test_only_loopback_needs_no_token(host: str, loopback: bool):
    assert is_loopback(host) is loopback
    check_access(host, Access(token="s"), insecure=False)
    check_access(host, Access(), insecure=True)
    if loopback:
        check_access(host, Access(), insecure=False)
    else:
        with pytest.raises(ValueError, match="MASKFREE_TOKEN"):
            check_access(host, Access(), insecure=False)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--host", "0.0.0.0"], "set MASKFREE_TOKEN, or say --insecure"),
        (["--port", "70000"], "the port 70000 does not exist"),
        (["--port", "-1"], "the port -1 does not exist"),
        (["--host", "no host", "--insecure"], "cannot listen at no host:8000"),
        (["--port", "0", "--models", "pocket", "pocket"], "name each one once"),
        (["--port", "0", "--models", "none"], "none"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as left:
        cli.main(["serve", *arguments])
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert reason in error and error.count("\n") == 1


def test_a_taken_port_is_said(capsys: pytest.CaptureFixture[str]):
    with listen("127.0.0.1", 0) as taken, pytest.raises(SystemExit) as left:
        cli.main(["serve", "--port", str(taken.getsockname()[1])])
    assert left.value.code == 2
    assert "Address already in use" in capsys.readouterr().err

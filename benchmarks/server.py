"""`maskfree serve` under 1, 8 and 32 clients, and under more than its queue takes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import tyro

from harness import RESULTS, Ratio, report

CLIENTS = (1, 8, 32)
# The queue takes 32 photos.
OVERLOAD = 64
WORDS = "building,sky,tree"
BOUNDARY = "boundary"


@dataclass
class Load:
    """What clients saw."""

    clients: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """Answered photos per second."""
        return self.statuses["200"] / self.seconds

    @property
    def cpu_each(self) -> float:
        """CPU seconds of the server for each answered photo, which other programs disturb least."""
        return self.cpu_seconds / max(1, self.statuses["200"])

    def quantile(self, percent: int) -> float:
        """Time in seconds within which so many percent of the answers came."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1]

    def row(self) -> dict[str, Any]:
        """Plain values for the results file."""
        return {
            "clients": self.clients,
            "requests per second": round(self.per_second, 2),
            "CPU s a request": round(self.cpu_each, 3),
            "p50 s": round(self.quantile(50), 3),
            "p99 s": round(self.quantile(99), 3),
            "statuses": dict(self.statuses),
        }


def body_of(photo: Path) -> bytes:
    """A multipart form with a photo and words."""
    words = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="words"\r\n\r\n{WORDS}\r\n'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    return (words + head).encode() + photo.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()


def cpu_seconds(process: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def put_load(process: int, port: int, body: bytes, clients: int, seconds: float) -> Load:
    """Let clients ask one request after another for some time."""
    load, lock = Load(clients), threading.Lock()
    started, cpu_started = time.perf_counter(), cpu_seconds(process)

    def ask_on() -> None:
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        with closing(HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
            while time.perf_counter() - started < seconds:
                begun = time.perf_counter()
                try:
                    connection.request("POST", "/v1/segment", body, headers)
                    answer = connection.getresponse()
                    answer.read()
                    status = str(answer.status)
                except OSError as error:
                    status = f"lost: {type(error).__name__}"
                    connection.close()
                with lock:
                    load.statuses[status] += 1
                    if status == "200":
                        load.latencies.append(time.perf_counter() - begun)
                if status == "429":
                    # A good client waits for as long as Retry-After says.
                    time.sleep(1)

    threads = [threading.Thread(target=ask_on) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - started
    load.cpu_seconds = cpu_seconds(process) - cpu_started
    return load


def main(
    model: str = "pocket",
    photo: Path = Path("examples/pagoda.jpg"),
    seconds: float = 15,
    results: Path = RESULTS,
) -> None:
    """Put load on a server of its own.

    Args:
        model: Name of a model or folder of a checkpoint.
        photo: Photo that every client sends.
        seconds: Time of each number of clients.
        results: Folder for the results file.
    """
    command = [sys.executable, "-m", "maskfree", "serve", "--models", model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().split("127.0.0.1:")[1].split("/")[0])
            body = body_of(photo)
            put_load(server.pid, port, body, 1, 2)
            loads = [put_load(server.pid, port, body, clients, seconds) for clients in CLIENTS]
            overload = put_load(server.pid, port, body, OVERLOAD, seconds)
        finally:
            server.terminate()

    one, eight, many = loads
    lost = sum(
        count
        for load in (*loads, overload)
        for status, count in load.statuses.items()
        if status not in ("200", "429")
    )
    ratios = [
        Ratio("8 clients over one by one, requests a second", eight.per_second / one.per_second),
        Ratio("32 clients over one by one, requests a second", many.per_second / one.per_second),
        Ratio("CPU time of a request, 8 clients over one by one", eight.cpu_each / one.cpu_each),
        Ratio("requests lost, of all", float(lost), "at most 0", unit=""),
    ]
    times = {f"p50 of {load.clients} clients": load.quantile(50) for load in loads}
    times |= {f"p99 of {load.clients} clients": load.quantile(99) for load in loads}
    rows = [load.row() for load in (*loads, overload)]
    settings = {"model": model, "photo": photo.name, "words": WORDS, "seconds": seconds}
    # Answers come later where other programs want the same cores.
    settings["load of the machine"] = round(os.getloadavg()[0], 1)
    report("server", times, ratios, settings, results, rows)


if __name__ == "__main__":
    tyro.cli(main)

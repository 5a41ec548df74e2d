"""A server of the bundled model and a browser before it, for tests of the page."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from maskfree.hub import loading
from maskfree.serve.limits import Access, Limits
from maskfree.serve.models import Models
from maskfree.serve.run import listen, make_server

CHROMIUM = shutil.which("chromium")
# As root, and without looking up hosts of its maker.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
AXE = Path(os.environ.get("MASKFREE_AXE", "/nowhere/axe.min.js"))
"""axe-core's script: `npm install axe-core` puts it at node_modules/axe-core/axe.min.js."""


def missing() -> str:
    """Say what the tests of the page lack here; empty if they can run."""
    if find_spec("playwright") is None:
        return "tests of the page need playwright: pip install playwright"
    if CHROMIUM is None:
        return "tests of the page need Debian's chromium: apt-get install chromium"
    return ""


@contextmanager
def served(access: Access, limits: Limits) -> Iterator[str]:
    """Address of a server with the bundled model, and with a coarser reading of it."""
    pocket = loading.load("pocket", "cpu")
    coarse = replace(pocket, name="coarse", inference=pocket.inference.changed(side_px=192))
    models = Models({"pocket": pocket, "coarse": coarse}, limits.max_words)
    server = make_server(models, access, limits)
    with listen("127.0.0.1", 0) as taken:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield started
        finally:
            started.close()

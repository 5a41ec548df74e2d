"""The `maskfree serve` command."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

from tyro.conf import OmitArgPrefixes

from maskfree.cli.common import Execution, keep_freed_memory, note
from maskfree.config.extras import need

TOKEN_VARIABLE, KEY_VARIABLE = "MASKFREE_TOKEN", "MASKFREE_LABEL_STUDIO_KEY"
"""Variables that hold secrets, which everybody on a machine could read on a command line."""


def serve(
    models: tuple[str, ...] = ("pocket",),
    host: str = "127.0.0.1",
    port: int = 8000,
    insecure: bool = False,
    hosts: tuple[str, ...] = (),
    label_studio: str = "",
    hardware: Annotated[Execution, OmitArgPrefixes] = Execution(),  # noqa: B008 - frozen
) -> int:
    """Serve a page in the browser, an HTTP interface, and a backend for Label Studio.

    The variable MASKFREE_TOKEN holds a token that requests must carry, as "Authorization: Bearer
    TOKEN"; MASKFREE_LABEL_STUDIO_KEY the key with which photos of Label Studio are fetched.

    Args:
        models: Models to load: names of `maskfree models`, METHOD:SOURCE, Hugging Face names, or
            folders; the first is the default.
        host: Address to listen at. At other addresses than this machine's own a token is needed, or
            --insecure.
        port: Port to listen at; 0 takes a free one.
        insecure: Serve others than this machine without a token.
        hosts: Names with a dot, such as maskfree.example.org, under which browsers may reach the
            server without a token.
        label_studio: Address of the Label Studio whose photos are fetched; empty: none are.
        hardware: Device and runtime of the networks.

    Returns:
        Exit status; the server runs until it is stopped.
    """
    need("maskfree serve", "serve")
    if not 0 <= port <= 65535:
        raise ValueError(f"the port {port} does not exist: 0 to 65535 do")
    chosen = hardware.chosen_runtime()

    from maskfree.serve.limits import Access, Limits
    from maskfree.serve.run import check_access, listen, load_models, make_server

    access = Access(
        token=os.environ.get(TOKEN_VARIABLE, ""),
        hosts=hosts,
        label_studio=label_studio,
        label_studio_key=os.environ.get(KEY_VARIABLE, ""),
    )
    check_access(host, access, insecure)

    # The port is taken before models are loaded, which may take long.
    with listen(host, port) as taken:
        keep_freed_memory()
        hardware.apply()
        limits = Limits()
        loaded = load_models(models, hardware.device, limits.max_words, chosen)

        if not access.token and insecure:
            note("everybody who reaches this server may use it")
        sys.stdout.write(f"{', '.join(models)}: {_address(host, taken)} (Ctrl-C stops)\n")
        sys.stdout.flush()
        make_server(loaded, access, limits).run(sockets=[taken])
    return 0


def _address(host: str, taken: socket.socket) -> str:
    """Address of the page."""
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{taken.getsockname()[1]}/"

"""Run a server until a signal stops it."""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
from collections.abc import Sequence

import uvicorn

from maskfree.hub import loading
from maskfree.inference.runtimes.names import RuntimeName
from maskfree.serve.app import create_app
from maskfree.serve.limits import Access, Limits
from maskfree.serve.models import Models

_BACKLOG = 128


def check_access(host: str, access: Access, insecure: bool) -> None:
    """Check that a server which others can reach asks for a token, or is said to be open.

    Args:
        host: Address or name to listen at.
        access: Who may ask.
        insecure: Whether the server is meant to be open.

    Raises:
        ValueError: It is not.
    """
    if not is_loopback(host) and not access.token and not insecure:
        raise ValueError(
            f"at the host {host} others can reach this server: set MASKFREE_TOKEN, "
            "or say --insecure"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address.

    Args:
        host: Address or name.

    Returns:
        True for localhost and loopback addresses.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Take a port, before anything slow is done.

    Args:
        host: Address or name to listen at.
        port: Port; 0 takes a free one.

    Returns:
        The listening socket.

    Raises:
        OSError: The address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error

    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(_BACKLOG)
    except OSError as error:
        taken.close()
        raise _cannot_listen(host, port, error) from error
    return taken


def _cannot_listen(host: str, port: int, error: Exception) -> OSError:
    """Error of an address that cannot be listened at."""
    reason = getattr(error, "strerror", None) or str(error)
    return OSError(f"cannot listen at {host}:{port}: {reason}")


def load_models(
    names: Sequence[str], device: str, max_words: int, runtime: RuntimeName = "auto"
) -> Models:
    """Load the models of a server.

    Args:
        names: Names as for `load`; the first is the default.
        device: Device of the networks.
        max_words: Most words of a request.
        runtime: Runtime of their image sides, as for `Segmenter.with_runtime`.

    Returns:
        The models.

    Raises:
        ValueError: A name is given twice, or a model or the runtime cannot be used.
        OSError: A model cannot be read.
    """
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"the models {', '.join(names) or 'are none'}: name each one once")
    loaded = {name: loading.load(name, device).with_runtime(runtime) for name in names}
    return Models(loaded, max_words)


def make_server(models: Models, access: Access, limits: Limits) -> uvicorn.Server:
    """Make a server; its `run` answers requests until SIGINT or SIGTERM.

    What is under way at a signal is finished.

    Args:
        models: Loaded models.
        access: Who may ask.
        limits: Bounds of requests.

    Returns:
        The server, which is given its listening socket when it runs.
    """
    # What clients send wrong is answered; they must not fill the log with it.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

    config = uvicorn.Config(
        create_app(models, access, limits),
        access_log=False,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=math.ceil(limits.body_seconds + limits.answer_seconds),
    )
    return uvicorn.Server(config)

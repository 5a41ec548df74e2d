"""What every request passes first: host and origin, token, size and time of its body."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import time
from collections.abc import MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskfree.serve.errors import Refused, error_answer
from maskfree.serve.limits import Access, Limits
from maskfree.serve.metrics import Metrics

# What a browser and a health check may ask without a token; none of it tells of photos.
_PUBLIC = ("/", "/api", "/openapi.json", "/healthz", "/readyz", "/health", "/favicon.ico")
_PUBLIC_FOLDER = "/static/"

_METHODS = ("GET", "HEAD", "POST")

# The page needs nothing from elsewhere, and no other page may frame or read it.
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; "
        "frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Middleware that refuses requests before they are read.

    A page of another site must not use a server on somebody's machine. It cannot send the token;
    without one, the host must be a name that no stranger can point at this machine, and the origin
    of a request from a page must be the server itself.

    Args:
        app: The app behind it.
        access: Who may ask.
        limits: Bounds of requests.
        metrics: Counters of the server.
    """

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._access = access
        self._limits = limits
        self._metrics = metrics
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        started, status = time.perf_counter(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        self._num_open += 1
        self._metrics.open.inc()
        try:
            await self._pass(scope, receive, counted)
        finally:
            self._num_open -= 1
            self._metrics.open.dec()
            self._count(scope, status, time.perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request by its headers, or pass it on with a bounded body."""
        headers = Headers(scope=scope)
        try:
            self._check(scope["path"], headers)
        except Refused as refused:
            answer = error_answer(refused.status_code, refused.detail, refused.headers)
            await answer(scope, receive, send)
            return

        await self._app(scope, self._bounded(receive), send)

    def _check(self, path: str, headers: Headers) -> None:
        """Raise Refused if the headers say that a request is not to be answered."""
        host = headers.get("host", "")
        if not self._access.token and not is_own_host(host, self._access.hosts):
            raise Refused(
                403,
                f"the host {host!r} is not this server: ask it by address, name it in --hosts, "
                "or give the server a token",
            )
        origin = headers.get("origin")
        if origin is not None and not _is_of_host(origin, host):
            raise Refused(403, f"pages of {origin} may not use this server")

        is_public = path in _PUBLIC or path.startswith(_PUBLIC_FOLDER)
        if self._access.token and not is_public:
            check_token(headers.get("authorization", ""), self._access.token)

        if self._num_open > self._limits.max_open:
            raise Refused(429, "too many requests at once: try again", {"retry-after": "1"})
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.max_bytes:
            raise _too_large(self._limits)

    def _bounded(self, receive: Receive) -> Receive:
        """Receive a body of bounded size within bounded time."""
        deadline = time.monotonic() + self._limits.body_seconds
        num_bytes = 0
        is_whole = False

        async def bounded() -> Message:
            nonlocal num_bytes, is_whole
            # After the body the next message is the client's leaving, for which there is no hurry.
            if is_whole:
                return await receive()

            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise Refused(
                    408, f"the request did not arrive within {self._limits.body_seconds:g} s"
                ) from None

            num_bytes += len(message.get("body", b""))
            if num_bytes > self._limits.max_bytes:
                raise _too_large(self._limits)
            is_whole = not message.get("more_body", False)
            return message

        return bounded

    def _count(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """Count a request; unknown paths and methods count together, as anyone can invent them."""
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"]
        if route == "other" or method not in _METHODS:
            method = "other"
        self._metrics.requests.labels(route, method, status or "none").inc()
        self._metrics.seconds.labels(route).observe(seconds)


def is_own_host(host: str, hosts: Sequence[str] = ()) -> bool:
    """Tell whether a Host header can only mean a machine that its user chose.

    A page can make a browser send a request to any address under a name of its own (DNS
    rebinding), but that name is in a domain, and so has a dot.

    Args:
        host: Value of the header.
        hosts: Other names of the server.

    Returns:
        True for localhost, an address, a name without a dot, and the server's names.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if not name:
        return False
    if name in map(str.lower, hosts):
        return True

    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(".localhost")
    return True


def _is_of_host(origin: str, host: str) -> bool:
    """Tell whether the page of an Origin header is the server's own."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def check_token(authorization: str, token: str) -> None:
    """Check that a request carries the token, in a time that does not depend on its letters.

    Args:
        authorization: Header: "Bearer TOKEN", or "Basic ..." with the token as password, which is
            what Label Studio can send.
        token: The token.

    Raises:
        Refused: It does not.
    """
    kind, _, given = authorization.partition(" ")
    if kind.lower() == "basic":
        try:
            pair = base64.b64decode(given, validate=True).decode()
        except (binascii.Error, ValueError):
            pair = ""
        given = pair.partition(":")[2]
    elif kind.lower() != "bearer":
        given = ""

    if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        raise Refused(
            401,
            "this server asks for its token, as 'Authorization: Bearer TOKEN'",
            {"www-authenticate": "Bearer"},
        )


def _too_large(limits: Limits) -> Refused:
    """Refusal of a body that is too large."""
    return Refused(413, f"the request is too large: {limits.max_bytes} bytes are the most")

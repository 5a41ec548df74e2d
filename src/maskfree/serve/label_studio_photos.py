"""Photos of tasks: inline, or fetched from the one Label Studio that the server was told of."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, unquote, urlsplit

# Paths under which Label Studio hands out files of tasks.
_PATHS = ("/data/", "/tasks/", "/projects/")
_SECONDS = 20
_PORTS = {"http": 80, "https": 443}


class LabelStudioPhotos:
    """Reads the photos of tasks.

    Whoever can ask for predictions names the photo, so that any other address would let strangers
    reach hosts that only this server can see. Redirects are not followed for the same reason.

    Args:
        address: Address of Label Studio; empty: nothing is fetched.
        key: Its API key, or a personal access token; may be empty.
        max_bytes: Most bytes of a photo.

    Raises:
        ValueError: The address is none, or the key has letters that no header can hold.
    """

    def __init__(self, address: str, key: str, max_bytes: int) -> None:
        self._address = urlsplit(address)
        if address and (self._address.scheme not in _PORTS or not self._address.hostname):
            raise ValueError(f"the address {address!r} of Label Studio must be http(s)://HOST:PORT")
        # Checked here, since the error of a request would tell the key to whoever asked.
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("the key of Label Studio has blanks or letters that no key has")
        self._key = key
        self._max_bytes = max_bytes
        self._access = ""
        self._lock = threading.Lock()

    def read(self, reference: str) -> bytes:
        """Read a photo.

        Args:
            reference: What a task's data say of it: a path of Label Studio, its address with a
                path, or a data: URI.

        Returns:
            Bytes of its file.

        Raises:
            ValueError: It lies elsewhere, or is too large.
            OSError: Label Studio does not hand it out.
        """
        if reference.startswith("data:"):
            return _inline(reference)
        target = self._target(reference)

        answer, content = self._get(target)
        if answer.status in (401, 403) and self._is_personal:
            # Access tokens last minutes.
            self._renew()
            answer, content = self._get(target)
        if answer.status != 200:
            raise OSError(f"Label Studio answers {answer.status} to {target[:100]}")
        if len(content) > self._max_bytes:
            raise ValueError(f"the photo is too large: {self._max_bytes} bytes are the most")
        return content

    def _target(self, reference: str) -> str:
        """Path and query of a photo at Label Studio; ValueError if it lies elsewhere."""
        if not self._address.hostname:
            raise ValueError(
                "photos of Label Studio are fetched only from the address that --label-studio gives"
            )
        try:
            place = urlsplit(reference)
            is_here = (not place.scheme and not place.netloc) or _same(place, self._address)
        except ValueError:
            is_here, place = False, self._address
        is_file = place.path.startswith(_PATHS) and not _climbs(place.path)
        is_plain = reference.isascii() and reference.isprintable() and " " not in reference
        if not (is_here and is_file and is_plain):
            raise ValueError(
                f"the photo {reference[:100]!r} is no file of {self._address.geturl()}: "
                "photos are fetched only from there"
            )
        return f"{place.path}?{place.query}" if place.query else place.path

    @property
    def _is_personal(self) -> bool:
        """Whether the key is a personal access token, a JSON web token."""
        return self._key.count(".") == 2

    def _get(self, target: str) -> tuple[HTTPResponse, bytes]:
        """Ask Label Studio for a file."""
        if self._is_personal and not self._access:
            self._renew()

        headers = {}
        if self._is_personal:
            headers["Authorization"] = f"Bearer {self._access}"
        elif self._key:
            headers["Authorization"] = f"Token {self._key}"
        return self._ask("GET", target, None, headers)

    def _renew(self) -> None:
        """Exchange the personal access token for one that opens files."""
        with self._lock:
            body = json.dumps({"refresh": self._key})
            answer, content = self._ask(
                "POST", "/api/token/refresh/", body, {"Content-Type": "application/json"}
            )
            if answer.status != 200:
                raise OSError(f"Label Studio answers {answer.status} to the personal access token")
            try:
                self._access = str(json.loads(content)["access"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise OSError("Label Studio answers without a token of access") from error

    def _ask(
        self, method: str, target: str, body: str | None, headers: dict[str, str]
    ) -> tuple[HTTPResponse, bytes]:
        """Send a request to Label Studio and read a bounded answer."""
        kind = HTTPSConnection if self._address.scheme == "https" else HTTPConnection
        assert self._address.hostname is not None
        connection = kind(self._address.hostname, self._address.port, timeout=_SECONDS)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer, answer.read(self._max_bytes + 1)
        except (OSError, HTTPException) as error:
            raise OSError(f"Label Studio cannot be reached: {error}") from error
        finally:
            connection.close()


def _same(one: SplitResult, other: SplitResult) -> bool:
    """Whether two addresses are of one server."""
    return (one.scheme, one.hostname, one.port or _PORTS.get(one.scheme)) == (
        other.scheme,
        other.hostname,
        other.port or _PORTS.get(other.scheme),
    )


def _climbs(path: str) -> bool:
    """Whether a path may leave its folder, also once servers on the way have decoded it."""
    decoded = unquote(unquote(path))
    return ".." in decoded or "\\" in decoded


def _inline(reference: str) -> bytes:
    """Content of a data: URI."""
    head, _, content = reference.partition(",")
    if not head.endswith(";base64"):
        raise ValueError("a data: URI of a photo must be in base64")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the data: URI of the photo is damaged") from error

"""Photos at web addresses."""

from __future__ import annotations

from http.client import HTTPException
from typing import TypeGuard
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

# Time in seconds without an answer after which a server is given up.
_TIMEOUT_S = 30.0
# Largest file that is read; a photo of the most pixels allowed is smaller as a JPEG.
_MAX_BYTES = 200 * 2**20


def is_url(source: object) -> TypeGuard[str]:
    """Tell whether a source of a photo is a web address.

    Args:
        source: Anything that `read_photo` takes.

    Returns:
        True for a text that begins with http:// or https://.
    """
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def download(url: str) -> bytes:
    """Read the file at a web address.

    Args:
        url: Address that begins with http:// or https://.

    Returns:
        Content of the file.

    Raises:
        OSError: The server cannot be reached, or does not give the file.
        ValueError: The file is too large.
    """
    # Some servers refuse the name that urllib gives itself.
    request = Request(url, headers={"User-Agent": "maskfree"})

    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:
            content = answer.read(_MAX_BYTES + 1)
    except HTTPError as error:
        raise OSError(f"{url} cannot be read: the server answers {error.code}") from error
    except URLError as error:
        raise OSError(f"{url} cannot be read: {error.reason}") from error
    except (HTTPException, OSError, ValueError) as error:
        raise OSError(f"{url} cannot be read: {error or type(error).__name__}") from error

    if len(content) > _MAX_BYTES:
        raise ValueError(f"{url} is larger than {_MAX_BYTES // 2**20} MiB")
    return content

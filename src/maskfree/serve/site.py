"""Files of the page, out of the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import APIRouter, Response

from maskfree.serve.errors import Refused

# What may be asked for by name; nothing else of the package can be.
_FOLDERS = ("", "examples/")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}


def site_routes() -> APIRouter:
    """Make the routes of the page and its files; they are no part of the HTTP interface.

    Returns:
        Routes of the page, the description of the interface, and their files.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        return _answer("index.html")

    @router.get("/api")
    async def interface() -> Response:
        return _answer("api.html")

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return _answer("icon.svg")

    @router.get("/static/{name:path}")
    async def static(name: str) -> Response:
        return _answer(name)

    return router


def _answer(name: str) -> Response:
    """A file of the page."""
    if name not in _names():
        raise Refused(404, f"there is no file {name[:100]!r}")

    content = (files("maskfree.serve") / "page" / name).read_bytes()
    kind = _TYPES[PurePosixPath(name).suffix]
    # The page and the server change together.
    return Response(content, media_type=kind, headers={"cache-control": "no-cache"})


@cache
def _names() -> frozenset[str]:
    """Names of all files of the page."""
    page = files("maskfree.serve") / "page"
    names = set()
    for folder in _FOLDERS:
        for file in (page / folder if folder else page).iterdir():
            if PurePosixPath(file.name).suffix in _TYPES:
                names.add(folder + file.name)
    return frozenset(names)

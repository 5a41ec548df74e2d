"""Files of the page, out of the package."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response

from maskfree.data.examples import EXAMPLES

_PAGE = files("maskfree.serve") / "page"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
}

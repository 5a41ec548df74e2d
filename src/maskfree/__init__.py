"""Label every pixel of a photo with your own words, using models that never saw a mask."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskfree.hub.loading import load as load
    from maskfree.inference.segmenter import Segmenter as Segmenter
    from maskfree.types import Segmentation as Segmentation

    __version__: str

__all__ = ["Segmentation", "Segmenter", "__version__", "load"]

_HOMES = {
    "load": "maskfree.hub.loading",
    "Segmenter": "maskfree.inference.segmenter",
    "Segmentation": "maskfree.types",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `import maskfree` does not wait for torch."""
    if name == "__version__":
        return import_module("importlib.metadata").version("maskfree")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'maskfree' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

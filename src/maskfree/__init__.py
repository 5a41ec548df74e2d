"""Open-vocabulary semantic segmentation with models trained without mask annotations."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskfree.hub.loading import load as load
    from maskfree.inference.segmenter import Segmenter as Segmenter
    from maskfree.types import Segmentation as Segmentation

    __version__: str

__all__ = ["Segmentation", "Segmenter", "__version__", "load"]

# Module of each public name.
_HOMES = {
    "load": "maskfree.hub.loading",
    "Segmenter": "maskfree.inference.segmenter",
    "Segmentation": "maskfree.types",
}


def __getattr__(name: str) -> Any:
    """Import public names lazily, so that `import maskfree` does not import torch."""
    if name == "__version__":
        return import_module("importlib.metadata").version("maskfree")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'maskfree' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names, whether imported yet or not."""
    return sorted({*globals(), *__all__})

"""Open-vocabulary semantic segmentation with models trained without mask annotations."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskfree import losses as losses
    from maskfree import methods as methods
    from maskfree.evaluation.by_name import evaluate as evaluate
    from maskfree.hub.catalog import list_models as list_models
    from maskfree.hub.loading import load as load
    from maskfree.inference.segmenter import Segmenter as Segmenter
    from maskfree.results.regions import Region as Region
    from maskfree.results.segmentation import Segmentation as Segmentation

    __version__: str

__all__ = [
    "Region",
    "Segmentation",
    "Segmenter",
    "__version__",
    "evaluate",
    "list_models",
    "load",
    "losses",
    "methods",
]

# Module of each public name.
_HOMES = {
    "evaluate": "maskfree.evaluation.by_name",
    "list_models": "maskfree.hub.catalog",
    "load": "maskfree.hub.loading",
    "Region": "maskfree.results.regions",
    "Segmenter": "maskfree.inference.segmenter",
    "Segmentation": "maskfree.results.segmentation",
}
# Packages that are reached as attributes.
_PACKAGES = ("losses", "methods")


def __getattr__(name: str) -> Any:
    """Import public names lazily, so that `import maskfree` does not import torch."""
    if name == "__version__":
        return import_module("importlib.metadata").version("maskfree")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return import_module(f"maskfree.{name}")
    raise AttributeError(f"module 'maskfree' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Public names, whether imported yet or not."""
    return sorted(__all__)

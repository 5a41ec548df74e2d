"""The package's extras: which modules each one brings, and how a missing one is said."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("lightning_fabric", "webdataset", "tensorboard", "scipy"),
    "evaluate": ("pycocotools", "scipy", "matplotlib", "lightning_fabric"),
    "entities": ("textblob", "lemminflect", "pyarrow", "braceexpand"),
    "regions": ("higra", "skimage", "scipy"),
    "video": ("av",),
    "heic": ("pillow_heif",),
    "search": ("faiss",),
    "zoo": ("timm", "open_clip"),
}
"""The modules of each extra of pyproject.toml."""


def need(what: str, *extras: str, modules: tuple[str, ...] = ()) -> None:
    """Check that the modules of some extras are installed.

    Args:
        what: What needs them, as the message names it.
        extras: Names of `EXTRAS`.
        modules: Those of their modules that are needed; all if empty.

    Raises:
        ValueError: a module is missing; the message says which extras to install.
    """
    wanted = {
        extra: [name for name in EXTRAS[extra] if not modules or name in modules]
        for extra in extras
    }
    missing = {
        extra: [name for name in names if find_spec(name) is None]
        for extra, names in wanted.items()
    }

    lacking = [extra for extra, names in missing.items() if names]
    if lacking:
        named = ", ".join(dict.fromkeys(name for names in missing.values() for name in names))
        raise ValueError(f"{what} needs {named}: pip install 'maskfree[{','.join(lacking)}]'")

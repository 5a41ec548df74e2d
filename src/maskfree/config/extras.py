"""Optional dependencies (extras) of the package, and a check that they are installed."""

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
"""Modules that each extra of pyproject.toml installs."""


def need(what: str, *extras: str, modules: tuple[str, ...] = ()) -> None:
    """Check that the modules of some extras are installed.

    Args:
        what: The feature that needs them, as named in the error message.
        extras: Names of extras, keys of `EXTRAS`.
        modules: Modules of these extras that are needed; all of them if empty.

    Raises:
        ValueError: A module is missing; the message says which extras to install.
    """
    wanted = {
        extra: [name for name in EXTRAS[extra] if not modules or name in modules]
        for extra in extras
    }

    # find_spec does not import the module, which keeps the check fast.
    missing = {
        extra: [name for name in names if find_spec(name) is None]
        for extra, names in wanted.items()
    }

    # One line names all missing modules and the extras to install.
    lacking = [extra for extra, names in missing.items() if names]
    if lacking:
        named = ", ".join(dict.fromkeys(name for names in missing.values() for name in names))
        raise ValueError(f"{what} needs {named}: pip install 'maskfree[{','.join(lacking)}]'")

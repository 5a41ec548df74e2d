"""Optional dependencies (extras) of the package, and a check that they are installed."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("lightning_fabric", "webdataset", "tensorboard", "scipy"),
    "evaluate": ("pycocotools", "scipy", "matplotlib", "lightning_fabric"),
    "entities": ("textblob", "lemminflect", "pyarrow", "braceexpand"),
    "regions": ("higra", "skimage", "scipy"),
    "label": ("skimage", "scipy", "contourpy", "pycocotools"),
    "video": ("av",),
    "heic": ("pillow_heif",),
    "serve": ("fastapi", "uvicorn", "python_multipart", "prometheus_client"),
    "search": ("faiss",),
    "fast": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "onnxruntime", "openvino"),
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
    # Each missing module and each extra to install once, in order.
    missing: dict[str, None] = {}
    missing_extras: dict[str, None] = {}
    for extra in extras:
        for name in EXTRAS[extra]:
            is_needed = not modules or name in modules
            # find_spec does not import the module, which keeps the check fast.
            if is_needed and find_spec(name) is None:
                missing[name] = None
                missing_extras[extra] = None

    if missing:
        raise ValueError(
            f"{what} needs {', '.join(missing)}: pip install 'maskfree[{','.join(missing_extras)}]'"
        )

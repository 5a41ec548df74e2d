"""Names of the runtimes of the image side, and the packages that they need."""

from __future__ import annotations

from typing import Literal

from maskfree.config.extras import need

RuntimeName = Literal["auto", "torch", "onnx", "openvino", "openvino-bf16", "openvino-int8"]

MODULES = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "openvino-bf16": "openvino",
    "openvino-int8": "openvino",
}
"""Module of each runtime that is not torch."""
_EXTRAS = {"onnxruntime": "fast", "openvino": "openvino"}


def need_runtime(name: RuntimeName) -> None:
    """Check that a runtime is installed.

    Args:
        name: Runtime; "auto" and "torch" always are.

    Raises:
        ValueError: Its package is missing.
    """
    if name in MODULES:
        module = MODULES[name]
        need(f"the runtime {name}", _EXTRAS[module], modules=(module,))

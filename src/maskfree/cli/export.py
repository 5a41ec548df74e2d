"""The `maskfree export` command: the image side of a model as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from maskfree.cli.common import stay_offline
from maskfree.config.extras import need


def export(
    model: Positional[str],
    onnx: Annotated[Path, arg(metavar="FILE")],
    offline: bool = False,
) -> int:
    """Export the image side of a model to ONNX, for photos of any number and size.

    The file is compared with torch in onnxruntime before it is kept.

    Args:
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        onnx: File to write; a file that is there is replaced if it is an export.
        offline: Use no network: only models in the package, in folders and in the cache of Hugging
            Face.

    Returns:
        Exit status 0.
    """
    need("the export", "fast")
    if onnx.suffix != ".onnx":
        raise ValueError(f"the file {onnx} must end in .onnx")
    if onnx.exists() and not onnx.is_file():
        raise ValueError(f"{onnx} is no file: it is not replaced")

    stay_offline(offline)
    from maskfree.hub import loading
    from maskfree.inference.runtimes.export import export as write

    loaded = loading.load(model, "cpu")
    about = {
        "model": loaded.name,
        "weights_sha256": loaded.weights_hash,
        "templates": list(loaded.templates),
    }
    difference = write(loaded.method, onnx, about)
    Console(highlight=False, markup=False, soft_wrap=True).print(
        f"{onnx}: as in torch, up to {difference:.0e} of the values"
    )
    return 0

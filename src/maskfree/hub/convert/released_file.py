"""Read a checkpoint that authors released without running anything that it refers to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskfree.files.tensors import checked_state, read_saved, reason

# What a released file may refer to beside tensors: run settings, and results of its evaluation.
_HARMLESS_MODULES = ("omegaconf", "collections", "typing", "enum")
_HARMLESS = {
    # Data type of a NumPy scalar.
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.bool_",
    "numpy.int32",
    "numpy.int64",
    "numpy.float32",
    "numpy.float64",
    # Types such as Optional[int] are pickled as a call of it.
    "_operator.getitem",
    "builtins.bool",
    "builtins.bytes",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "builtins.set",
    "builtins.str",
    "builtins.tuple",
    "builtins.type",
}


def read_released(file: Path, method: str) -> dict[str, Tensor]:
    """Read the tensors under "model" of a file written by `torch.save`.

    Nothing that the file refers to is imported or called.

    Args:
        file: Released file.
        method: Name of the method, for the error message.

    Returns:
        Tensors by name.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such a file, or it refers to something that a released checkpoint has
            no use for.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")

    # List what the pickle refers to, without running it.
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception as error:  # damaged bytes lead to errors of all kinds
        raise ValueError(
            f"{file} is no checkpoint of torch, or is damaged: {reason(error)}"
        ) from error

    if foreign := sorted(name for name in named if not _is_harmless(name)):
        raise ValueError(
            f"{file} names {foreign[0]}, for which a released checkpoint has no use: it is not read"
        )

    # Harmless classes and functions are replaced by ones that do nothing.
    inert: list[Any] = []
    for name in named:
        if name == "collections.defaultdict":
            inert.append((_plain_dict, name))
        else:
            inert.append((_Inert, name))

    with torch.serialization.safe_globals(inert):
        content = read_saved(file, mmap=True)

    state = None
    if isinstance(content, dict):
        state = content.get("model")

    return checked_state(
        state, file, f"no tensors under the name 'model': it is no released {method}"
    )


def _is_harmless(name: str) -> bool:
    """Whether a released checkpoint may refer to this class or function."""
    return name in _HARMLESS or name.partition(".")[0] in _HARMLESS_MODULES


class _Inert:
    """Stands in for each class and function that a file refers to: does nothing."""

    def __new__(cls, *anything: Any) -> _Inert:
        """Accept any arguments."""
        return super().__new__(cls)

    def __init__(self, *anything: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_dict(*anything: Any) -> dict[Any, Any]:
    """Stands in for `collections.defaultdict`, so that items can be set."""
    return {}

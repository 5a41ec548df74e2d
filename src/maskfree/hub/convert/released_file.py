"""Read a checkpoint that authors released without running anything that it refers to."""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

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
# First number of a file of before torch 1.6.
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
# Pickle operations that refer to something in another way than torch's files do.
_OTHER_REFERENCES = ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4")
# Names outside of torch that its safe loading allows.
_TORCH_ALLOWS = {
    "collections.OrderedDict",
    "collections.Counter",
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.set",
    "builtins.complex",
}


def read_released(file: Path, method: str) -> dict[str, Tensor]:
    """Read the tensors of a file written by `torch.save`, also by one of before torch 1.6.

    They lie under "model", as the authors' training writes them, under "state_dict", or are all
    that the file holds. Nothing that the file refers to is imported or called.

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
    zipped = is_zipfile(file)
    try:
        if zipped:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
        else:
            named = _named_in_old_file(file)
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
        content = read_saved(file, mmap=zipped)

    return checked_state(
        _state_in(content),
        file,
        f"no tensors under the name 'model', and is no state dict: it is no released {method}",
    )


def _state_in(content: Any) -> Any:
    """What should be the tensors; None if there is nothing of that kind."""
    if not isinstance(content, dict):
        return None
    for name in ("model", "state_dict"):
        if isinstance(content.get(name), dict):
            return content[name] or None

    # A bare state dict; anything else in it is an error later on.
    return content or None


def _named_in_old_file(file: Path) -> list[str]:
    """What a file of before torch 1.6 refers to, as torch lists it of newer ones.

    Raises:
        ValueError: It is no such file, or refers to something in a way that torch does not write.
    """
    named = set()
    with file.open("rb") as opened:
        # Four pickles come first: a magic number, then version, system and content.
        beginning = [argument for _, argument, _ in pickletools.genops(opened)]
        if _MAGIC_NUMBER not in beginning:
            raise ValueError("it does not begin as torch's files do")

        for _ in range(3):
            for operation, argument, _ in pickletools.genops(opened):
                if operation.name in _OTHER_REFERENCES:
                    raise ValueError(f"it has the pickle operation {operation.name}")
                if operation.name == "GLOBAL":
                    named.add(_named_today(str(argument)))

    # What torch allows itself, it also checks itself.
    return sorted(
        name for name in named if not name.startswith("torch.") and name not in _TORCH_ALLOWS
    )


def _named_today(reference: str) -> str:
    """Name of a class or function that a pickle names as Python 2 did, as "module name"."""
    module, _, name = reference.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (module, name))
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


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

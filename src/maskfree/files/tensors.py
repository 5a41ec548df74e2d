"""Files of tensors by others: sizes are read before they are believed, and nothing that a file names is run."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Module = TypeVar("Module", bound=nn.Module)

_MOST_HEADER_BYTES = 2**24  # of a safetensors file: names and shapes of over 100,000 tensors
_CALLS_A_TENSOR = 100  # of torch, while a network is built; in honest ones about 10
_CALLS_AT_LEAST = 10_000
_TIMES_AS_LARGE = (
    16  # all that is made while a network is built, beside its weights; in honest ones about 4
)
_ELEMENTS_AT_LEAST = 2**24


@dataclass(frozen=True)
class Contents:
    """What a file of weights holds, from which the size of its network follows."""

    num_tensors: int
    num_elements: int


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file, as `safetensors.safe_open` does.

    Args:
        path: The file.

    Raises:
        ValueError: It is damaged, or its header is larger than any that is needed.
    """
    try:
        _check_header(path)
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        ValueError: It is damaged, or its header is larger than any that is needed.
    """
    try:
        _check_header(path)
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from error


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        first = file.read(8)
    if len(first) == 8 and (length := struct.unpack("<Q", first)[0]) > _MOST_HEADER_BYTES:
        raise ValueError(
            f"{path} is damaged: its header of {length:,} bytes is larger than any that is needed"
        )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a state dict that `torch.save` wrote; nothing in it is run.

    Args:
        path: The file; what a training script puts around the tensors, "state_dict", goes.

    Returns:
        Tensors by name.

    Raises:
        OSError: There is no such file.
        ValueError: It is neither, or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    content = read_safetensors(path) if path.suffix == ".safetensors" else read_saved(path)
    inner = content.get("state_dict", content) if isinstance(content, dict) else None
    return checked_state(
        inner, path, "no state dict: names with tensors, or these under 'state_dict'"
    )


def read_saved(path: Path, mmap: bool = False) -> Any:
    """Read what `torch.save` wrote, of which tensors and plain containers are made and nothing is run.

    Raises:
        ValueError: It is no such file, is damaged, or names anything else.
    """
    if zipfile.is_zipfile(path) and _is_program(path):
        raise ValueError(
            f"{path} is a TorchScript archive, which is a program and is not run: where you trust it, save "
            "torch.jit.load(FILE).state_dict() with safetensors.torch.save_file, and give that file"
        )
    try:
        return torch.load(path, map_location="cpu", mmap=mmap or None, weights_only=True)
    except Exception as error:  # damaged bytes lead to errors of all kinds
        raise ValueError(
            f"{path} is no file of tensors that can be read safely: {reason(error)}"
        ) from error


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def checked_state(content: Any, path: Path, otherwise: str) -> dict[str, Tensor]:
    """See that CONTENT is a dict of tensors that are as large as they say.

    Args:
        content: What a file holds.
        path: The file.
        otherwise: What the message says that it holds, as in "no state dict".

    Raises:
        ValueError: It is none, or a tensor repeats a smaller memory or has none on the CPU.
    """
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ValueError(f"{path} holds {otherwise}")
    if not all(isinstance(name, str) for name in content):
        raise ValueError(f"{path} holds {otherwise}")
    for name, tensor in content.items():
        plain = (
            tensor.layout == torch.strided
            and tensor.device.type == "cpu"
            and not tensor.is_quantized
        )
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{path} is damaged: the tensor {name!r} is larger than what is stored of it"
            )
    return content


def reason(error: BaseException) -> str:
    """Say in one line why a file of tensors was not read, without torch's advice to run what is in it."""
    text = str(error) or type(error).__name__
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it names {named[1]}, which is no tensor, and is not run"
    if re.search(r"weights.only", text, re.IGNORECASE):
        return "it is damaged, or holds something other than tensors, which is not run"
    return text.splitlines()[0][:300]


def within(contents: Contents, build: Callable[[], Module]) -> Module:
    """Build a network without memory for its weights, to see that it is no larger than a file of weights says.

    Args:
        contents: What the file holds.
        build: Makes the network; it may make more than the file holds, but not much more.

    Returns:
        The network, whose weights have shapes but no values.

    Raises:
        ValueError: The network is larger, or cannot be built.
    """
    try:
        with torch.device("meta"), _Limited(contents):
            return build()
    except Exception as error:  # those who build check in their own ways, if at all
        raise ValueError(
            f"the network that it describes cannot be built: {reason(error)}"
        ) from error


class _Limited(TorchFunctionMode):
    """Counts what torch makes inside, and stops when it is more than CONTENTS can have use for."""

    def __init__(self, contents: Contents):
        super().__init__()
        self._calls = _CALLS_AT_LEAST + _CALLS_A_TENSOR * contents.num_tensors
        self._elements = _ELEMENTS_AT_LEAST + _TIMES_AS_LARGE * contents.num_elements

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self._calls -= 1
        self._elements -= made.numel() if isinstance(made, Tensor) else 0
        if self._calls < 0 or self._elements < 0:
            raise ValueError("it is larger than the weights that there are")
        return made

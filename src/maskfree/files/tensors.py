"""Safe loading of untrusted weight files: bounded sizes, and no code of the file is executed."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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

# Largest header of a safetensors file: names and shapes of over 100,000 tensors.
_MAX_HEADER_BYTES = 2**24

# Limits while a network is built. Ordinary networks need about 10 calls of torch for each tensor,
# and create about 4 times as many elements as their weights have.
_CALLS_A_TENSOR = 100
_MIN_CALLS = 10_000
_TIMES_AS_LARGE = 16
_MIN_ELEMENTS = 2**24

# Names, not functions: transformers replaces those of torch.nn.init while it builds a model.
_RANDOM_FILLS = {
    "uniform_",
    "normal_",
    "erfinv_",
    "trunc_normal_",
    "xavier_uniform_",
    "xavier_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
    "orthogonal_",
}


@dataclass(frozen=True)
class Contents:
    """Number of tensors and elements in a weight file, which bound the size of its network."""

    num_tensors: int
    num_elements: int


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Open a safetensors file as `safetensors.safe_open` does, with a bounded header.

    Args:
        path: File to open.

    Yields:
        The open file, as `safetensors.safe_open` gives it.

    Raises:
        ValueError: The file is damaged, or its header is larger than `_MAX_HEADER_BYTES`.
    """
    try:
        _check_header(path)
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Args:
        path: File to read.

    Returns:
        Tensors by name.

    Raises:
        ValueError: The file is damaged, or its header is larger than `_MAX_HEADER_BYTES`.
    """
    try:
        _check_header(path)
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from error


def _check_header(path: Path) -> None:
    """Refuse a file whose header length, its first 8 bytes, would take too much memory."""
    # The format begins with the length as a little-endian 64-bit integer.
    with path.open("rb") as file:
        first = file.read(8)
    if len(first) == 8 and (length := struct.unpack("<Q", first)[0]) > _MAX_HEADER_BYTES:
        raise ValueError(
            f"{path} is damaged: its header of {length:,} bytes is larger than any that is needed"
        )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file or a file of `torch.save`, without executing code.

    Args:
        path: File to read; if its content is a dict with the key "state_dict", as training scripts
            write it, that entry is taken.

    Returns:
        Tensors by name.

    Raises:
        OSError: There is no such file.
        ValueError: The file has neither format, or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")

    content: Any
    if path.suffix == ".safetensors":
        content = read_safetensors(path)
    else:
        content = read_saved(path)

    # Anything but a dict fails the check below.
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    return checked_state(
        content, path, "no state dict: names with tensors, or these under 'state_dict'"
    )


def read_saved(path: Path, mmap: bool = False) -> Any:
    """Read a file of `torch.save` that holds only tensors and plain containers.

    Args:
        path: File to read.
        mmap: Map the tensors into memory instead of reading them.

    Returns:
        Content of the file, with tensors on the CPU.

    Raises:
        ValueError: The file has another format, is damaged, or refers to other Python objects.
    """
    if zipfile.is_zipfile(path) and _is_program(path):
        raise ValueError(
            f"{path} is a TorchScript archive, which is a program and is not run: "
            "where you trust it, save torch.jit.load(FILE).state_dict() "
            "with safetensors.torch.save_file, and give that file"
        )

    try:
        return torch.load(path, map_location="cpu", mmap=mmap or None, weights_only=True)
    except Exception as error:
        # Damaged bytes raise exceptions of many types.
        raise ValueError(
            f"{path} is no file of tensors that can be read safely: {reason(error)}"
        ) from error


def _is_program(path: Path) -> bool:
    """Whether a zip archive is a TorchScript program."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def checked_state(content: Any, path: Path, otherwise: str) -> dict[str, Tensor]:
    """Check that content is a dict of dense CPU tensors backed by enough memory.

    Args:
        content: Content of a file.
        path: The file, for error messages.
        otherwise: What the error message says the file holds, such as "no state dict".

    Returns:
        The same content.

    Raises:
        ValueError: The content is not a dict of named tensors, or a tensor is larger than its
            stored memory, is sparse or quantized, or is not on the CPU.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {otherwise}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path} holds {otherwise}")

    # A tensor with zero strides may claim more elements than the file holds.
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
    """Describe in one line why a weight file was not read.

    The advice in torch's messages to load the file with `weights_only=False` is left out.

    Args:
        error: Exception that torch raised.

    Returns:
        The reason, of at most 300 characters.
    """
    text = str(error) or type(error).__name__

    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it names {named[1]}, which is no tensor, and is not run"
    if re.search(r"weights.only", text, re.IGNORECASE):
        return "it is damaged, or holds something other than tensors, which is not run"

    return text.splitlines()[0][:300]


def within(contents: Contents, build: Callable[[], Module]) -> Module:
    """Build a network on the meta device and check that its size fits a weight file.

    Args:
        contents: Number of tensors and elements in the weight file.
        build: Function that builds the network; it may create more elements than the file holds,
            up to a fixed multiple.

    Returns:
        The network on the meta device: its weights have shapes but no values.

    Raises:
        ValueError: The network is too large for the file, or cannot be built.
    """
    try:
        with torch.device("meta"), _Limited(contents):
            return build()
    except Exception as error:
        # Builders validate their settings in different ways, so any exception may come.
        raise ValueError(
            f"the network that it describes cannot be built: {reason(error)}"
        ) from error


def filled_at_random(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> Tensor | None:
    """Find the tensor that a call of torch would fill with random numbers.

    Args:
        func: Function that is called.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        The tensor; None for any other call.
    """
    if getattr(func, "__name__", "") not in _RANDOM_FILLS:
        return None
    if args:
        return args[0]
    return (kwargs or {})["tensor"]


class _Limited(TorchFunctionMode):
    """Torch function mode that stops when more is created than a weight file could fill."""

    def __init__(self, contents: Contents):
        super().__init__()
        self._calls = _MIN_CALLS + _CALLS_A_TENSOR * contents.num_tensors
        self._elements = _MIN_ELEMENTS + _TIMES_AS_LARGE * contents.num_elements

    def __torch_function__(self, func, types, args=(), kwargs=None):
        # On this device torch would load its compiler to fill in nothing.
        made = filled_at_random(func, args, kwargs)
        if made is None:
            made = func(*args, **(kwargs or {}))

        self._calls -= 1
        if isinstance(made, Tensor):
            self._elements -= made.numel()

        if self._calls < 0 or self._elements < 0:
            raise ValueError("it is larger than the weights that there are")
        return made


def listed_names(names: Sequence[str]) -> str:
    """Join names of tensors for a message, at most three of them.

    Args:
        names: The names, in the order to show.

    Returns:
        The first three, and how many more there are.
    """
    text = ", ".join(names[:3])
    if len(names) > 3:
        text += f" and {len(names) - 3} more"
    return text

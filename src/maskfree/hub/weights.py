"""Weights of a checkpoint in a safetensors file, stored as float32, float16 or int8."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskfree.config.rules import Storage
from maskfree.files.tensors import listed_names, open_safetensors

SCALE = "::scale"
"""Suffix of the tensor that holds the row scales of an int8 tensor."""

# Smaller tensors stay float: they would save little.
_MIN_INT8_ELEMENTS = 4096

# Types of safetensors in the order of its writer, which puts the last ones first.
_TYPE_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.int64: "I64",
}
_TYPES = list(_TYPE_NAMES)


def pack(state: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Convert weights to their storage format.

    Args:
        state: Weights by name.
        storage: int8 stores large matrices as 8-bit rows with one scale each, and smaller tensors
            as float32; float16 and float32 store all tensors so.

    Returns:
        Tensors to store, with the scales of the int8 ones.

    Raises:
        ValueError: A weight is not finite, or too large for the format.
    """
    packed = {}
    for name, tensor in state.items():
        values = tensor.detach().cpu()

        if values.is_floating_point():
            if storage == "int8" and values.ndim >= 2 and values.numel() >= _MIN_INT8_ELEMENTS:
                values, packed[name + SCALE] = _to_int8(values.float())
            elif storage == "float16":
                values = values.half()
            else:
                values = values.float()

            # Integers are finite, so check an int8 tensor by its scales.
            if not packed.get(name + SCALE, values).isfinite().all():
                raise ValueError(
                    f"the weights {name} are not finite, or too large to store as {storage}"
                )

        # Clone, because safetensors refuses tied weights that share memory.
        packed[name] = values.clone(memory_format=torch.contiguous_format)

    return packed


def file_hash(state: Mapping[str, Tensor]) -> str:
    """Hash weights as the file of a checkpoint that stores them as float32.

    So weights have one hash, whether they are read from files of others or from their checkpoint.

    Args:
        state: Weights by name.

    Returns:
        SHA-256 of the file, which is not written.

    Source: format of safetensors; its writer orders tensors by type, then by name.
    """
    types = {name: _stored_type(tensor) for name, tensor in state.items()}
    ordered = sorted(state, key=lambda name: (-_TYPES.index(types[name]), name))
    header, begin = {}, 0
    for name in ordered:
        end = begin + state[name].numel() * types[name].itemsize
        header[name] = {
            "dtype": _TYPE_NAMES[types[name]],
            "shape": list(state[name].shape),
            "data_offsets": [begin, end],
        }
        begin = end

    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # The header is filled up with spaces to whole words of 8 bytes.
    text += b" " * (-len(text) % 8)
    total = hashlib.sha256(len(text).to_bytes(8, "little") + text)
    for name in ordered:
        values = state[name].detach().cpu().to(types[name]).contiguous()
        total.update(values.numpy().tobytes())
    return total.hexdigest()


def unpack(
    path: Path, expected: Mapping[str, Tensor], without: Collection[str] = ()
) -> dict[str, Tensor]:
    """Read weights as float.

    Args:
        path: The safetensors file.
        expected: Weights of the method, by the names in the file.
        without: Names in the file that are not read.

    Returns:
        Weights by name.

    Raises:
        ValueError: A tensor is missing, left over, or of another shape or type.
    """
    with named_in_errors(path), open_safetensors(path) as file:
        shapes = _shapes(file)
        for name in without:
            del shapes[name]

        check_shapes(shapes, expected)
        return {name: _restore(file, name, shapes, tensor) for name, tensor in expected.items()}


def stored_names(path: Path) -> set[str]:
    """Return the names of the tensors in a file, those of scales included.

    Args:
        path: The safetensors file.

    Returns:
        Names of the tensors.
    """
    with open_safetensors(path) as file:
        return set(file.keys())


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a file, without reading them.

    Args:
        path: The safetensors file.

    Returns:
        Shapes by name.
    """
    with open_safetensors(path) as file:
        return _shapes(file)


def check_shapes(stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    """Check that names and shapes agree; scales of int8 tensors are ignored.

    Args:
        stored: Shapes in the file, by name.
        expected: Weights of the method, by the names in the file.

    Raises:
        ValueError: Names or shapes differ.
    """
    # A name with the suffix of scales counts only if there is no tensor to go with it.
    names = {name for name in stored if name.removesuffix(SCALE) not in stored.keys() - {name}}
    if names != expected.keys():
        raise ValueError(_difference(expected.keys() - names, names - expected.keys()))

    for name in sorted(names):
        shape = tuple(expected[name].shape)
        if stored[name] != shape:
            raise ValueError(f"tensor {name} is {stored[name]} where the method has {shape}")


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Name the file in errors about tensors that do not fit.

    Args:
        path: The safetensors file.

    Yields:
        Nothing; the body compares the tensors.

    Raises:
        ValueError: The body raised one.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} does not fit its run.json or is damaged: {error}") from error


def _shapes(file: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of an open safetensors file, by name."""
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict


def _stored_type(tensor: Tensor) -> torch.dtype:
    """Type in which a float32 checkpoint stores a tensor."""
    if tensor.is_floating_point():
        return torch.float32
    return tensor.dtype


def _to_int8(values: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit rows and one scale for each row: values are about row * scale."""
    rows = values.flatten(1)
    scales = rows.abs().amax(1) / 127

    # A row of zeros has scale 0, and would be divided by it.
    steps = scales.where(scales > 0, 1)[:, None]
    return (rows / steps).round().to(torch.int8).view(values.shape), scales


def _restore(file: Any, name: str, stored: Collection[str], expected: Tensor) -> Tensor:
    """Read one tensor; an int8 tensor is multiplied by its scales."""
    values = file.get_tensor(name)
    if name + SCALE in stored:
        scales = file.get_tensor(name + SCALE)
        if scales.shape != values.shape[:1] or not scales.is_floating_point():
            raise ValueError(f"the scales of {name} do not fit it")
        return values.float().mul_(scales.view(-1, *[1] * (values.ndim - 1)))

    if values.is_floating_point() != expected.is_floating_point():
        raise ValueError(f"tensor {name} is {values.dtype} where the method has {expected.dtype}")

    return values


def _difference(missing: Iterable[str], extra: Iterable[str]) -> str:
    """Error text that lists up to three missing and left over names."""
    parts = []
    for kind, names in (("missing", sorted(missing)), ("left over", sorted(extra))):
        if names:
            parts.append(f"{kind}: {listed_names(names)}")

    return "tensors are " + "; ".join(parts)

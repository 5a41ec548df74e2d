"""Checkpoints: folders with weights.safetensors, run.json (all settings) and tokenizer.json.

Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from maskfree.config.rules import Storage
from maskfree.devices import resolve
from maskfree.files.leftovers import (
    remove_leftovers,
    replace_folder,
    unfinished_folder,
    whole,
    writing,
)
from maskfree.files.tensors import Contents, filled_at_random, within
from maskfree.hub.run_file import read_run, run_text
from maskfree.hub.weights import (
    SCALE,
    check_shapes,
    named_in_errors,
    pack,
    stored_names,
    stored_shapes,
    unpack,
)
from maskfree.method import Method
from maskfree.method_config import MethodConfig
from maskfree.text.tokenize import Tokenizer
from maskfree.text.tokenizer_files import MAX_BYTES

TOKENIZER = "tokenizer.json"
"""File of a checkpoint's tokenizer."""

_WEIGHTS, _RUN = "weights.safetensors", "run.json"
# Larger files are refused before they are read.
_MAX_BYTES = {_WEIGHTS: 2**33, _RUN: 2**24, TOKENIZER: MAX_BYTES}


def save(
    folder: Path,
    method: Method,
    config: MethodConfig,
    tokenizer: Tokenizer,
    run: Mapping[str, Any],
    storage: Storage = "float32",
) -> None:
    """Write a checkpoint from which `load` restores the method.

    The folder is written atomically. An older checkpoint there can be loaded until the new one
    replaces it.

    Args:
        folder: Folder to write; may hold an older checkpoint, which is replaced.
        method: Method whose weights are saved.
        config: Settings of the method.
        tokenizer: Tokenizer of its texts.
        run: Further keys of run.json: "name", "templates" and optionally "inference" settings.
        storage: Number format of the weights. int8 stores large matrices as 8-bit rows with one
            scale each (smaller tensors stay float32); float16 halves every float tensor.

    Raises:
        OSError: The folder cannot be written.
        ValueError: The folder exists and is not a checkpoint, or a weight is not finite.
    """
    if not _may_be_replaced(folder):
        raise ValueError(f"{folder} exists and is no checkpoint: it is not replaced")

    text = run_text(run, config, storage)

    # A symbolic link stays, and its target is replaced.
    if folder.is_symlink():
        folder = folder.resolve()

    remove_leftovers(folder.parent)
    with writing(folder), unfinished_folder(folder.parent) as unfinished:
        (unfinished / _RUN).write_text(text, encoding="utf-8")
        tokenizer.save(unfinished / TOKENIZER)
        save_file(pack(method.state_dict(), storage), unfinished / _WEIGHTS)

        # safetensors makes its file private: give it the permissions of the others.
        permissions = (unfinished / _RUN).stat().st_mode & 0o666
        (unfinished / _WEIGHTS).chmod(permissions)
        replace_folder(unfinished, folder)


def load(
    folder: Path, configs: Mapping[str, type[MethodConfig]], device: str | torch.device = "auto"
) -> tuple[Method, Tokenizer, dict[str, Any], str]:
    """Load a checkpoint.

    Args:
        folder: Folder of the checkpoint.
        configs: Methods that may be built, by the name of their config class.
        device: Device to load to, as for `devices.resolve`.

    Returns:
        The method in eval mode, its tokenizer, the content of run.json, and the SHA-256 of the
        weights file.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The device is not available, run.json has wrong types, or tensors are missing,
            left over or of the wrong shape.
    """
    place = resolve(device)
    folder = whole(folder)
    _check_files(folder)
    run, config = read_run(folder / _RUN, configs)
    tokenizer = Tokenizer.from_file(folder / TOKENIZER)
    _check_size(config, folder)
    try:
        config.check_tokenizer(tokenizer.vocabulary_size, tokenizer.max_length)
    except ValueError as error:
        raise ValueError(f"{folder / TOKENIZER} does not fit {_RUN}: {error}") from error

    # Initial values would be replaced by the weights.
    with _NoRandomFill():
        method = config.build()

    method.load_state_dict(unpack(folder / _WEIGHTS, method.state_dict()))

    with (folder / _WEIGHTS).open("rb") as file:
        weights_hash = hashlib.file_digest(file, "sha256").hexdigest()

    return method.to(place).eval(), tokenizer, run, weights_hash


def read_config(folder: Path, configs: Mapping[str, type[MethodConfig]]) -> MethodConfig:
    """Read the settings of a checkpoint's method, without its weights.

    Args:
        folder: Folder of the checkpoint.
        configs: Methods that the checkpoint may be of, by the name of their config class.

    Returns:
        Settings of the method.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: run.json has wrong types, or another method.
    """
    folder = whole(folder)
    _check_files(folder)
    return read_run(folder / _RUN, configs)[1]


def weight_names(folder: Path) -> list[str]:
    """List the weights of a checkpoint.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        Names of the method's tensors, sorted.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is damaged.
    """
    names = stored_names(_weights_of(folder))
    return sorted({name.removesuffix(SCALE) for name in names})


def start_from(
    folder: Path,
    method: Method,
    renamed: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
) -> list[str]:
    """Load the weights of a checkpoint into a method, which may have further parameters.

    Args:
        folder: Folder of the checkpoint.
        method: Method to fill in place.
        renamed: Name prefixes of the checkpoint, each with the prefix in `method`.
        without: Name prefixes of the checkpoint's weights that are not loaded.

    Returns:
        Names of the tensors of `method` that were not loaded.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The checkpoint has weights that the method lacks or has in another shape.
    """
    path = _weights_of(folder)
    state = method.state_dict()
    stored = stored_names(path)

    # The scales of an int8 tensor are left out with it.
    left_out = set()
    for name in stored:
        if any(has_prefix(name.removesuffix(SCALE), prefix) for prefix in without):
            left_out.add(name)

    # Match the remaining names with those of the method.
    names = {name: _renamed(name, renamed or {}) for name in stored - left_out}
    shared = {name: state[here] for name, here in names.items() if here in state}

    loaded = {names[name]: tensor for name, tensor in unpack(path, shared, left_out).items()}
    method.load_state_dict(loaded, strict=False)
    return sorted(state.keys() - loaded.keys())


def has_prefix(name: str, prefix: str) -> bool:
    """Whether a dotted name is a prefix or lies below it, as `encoder.stem` lies below `encoder`.

    Args:
        name: Dotted name of a parameter.
        prefix: Dotted name of a parameter or module.

    Returns:
        True if `name` equals `prefix` or begins with it and a dot.
    """
    return name == prefix or name.startswith(prefix + ".")


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """Replace the first matching prefix of a name."""
    for prefix, here in prefixes.items():
        if has_prefix(name, prefix):
            return here + name.removeprefix(prefix)
    return name


class _NoRandomFill(TorchFunctionMode):
    """Context in which new modules skip their random initialization, which takes most of the time.

    Constants are still filled in, so that buffers that are not in the checkpoint are right.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Fill with zeros instead of random values."""
        tensor = filled_at_random(func, args, kwargs)
        if tensor is not None:
            # Zeros, not uninitialized memory: trunc_normal_ draws until all values are in bounds.
            tensor.detach().zero_()
            return tensor
        return func(*args, **(kwargs or {}))


def _may_be_replaced(folder: Path) -> bool:
    """Whether a folder is missing, empty, or a checkpoint."""
    if not folder.exists() or (folder / _RUN).is_file():
        return True
    return folder.is_dir() and not any(folder.iterdir())


def _weights_of(folder: Path) -> Path:
    """File with the weights of a checkpoint."""
    path = whole(folder) / _WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no {_WEIGHTS}")
    return path


def _check_files(folder: Path) -> None:
    """Check a checkpoint, which may come from anywhere, before spending memory on it."""
    for name, max_bytes in _MAX_BYTES.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is no checkpoint: it has no {name}")
        if (folder / name).stat().st_size > max_bytes:
            raise ValueError(f"{folder / name} is larger than {max_bytes} bytes: it is not read")


def _check_size(config: MethodConfig, folder: Path) -> None:
    """Check that the weights fit the method, before memory is allocated for it."""
    shapes = stored_shapes(folder / _WEIGHTS)
    contents = Contents(len(shapes), sum(map(math.prod, shapes.values())))

    try:
        method = within(contents, config.build)
    except ValueError as error:
        raise ValueError(f"{folder / _RUN}: {error}") from error

    with named_in_errors(folder / _WEIGHTS):
        check_shapes(shapes, method.state_dict())

"""Checkpoints: folders with weights.safetensors, run.json (all settings) and tokenizer.json.

Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dacite
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from maskfree.config.rules import Storage, check, outside_names
from maskfree.devices import resolve
from maskfree.files.atomic import read_json
from maskfree.files.leftovers import (
    remove_leftovers,
    replace_folder,
    unfinished_folder,
    whole,
    writing,
)
from maskfree.files.tensors import Contents, open_safetensors, within
from maskfree.method import Method
from maskfree.method_config import MethodConfig
from maskfree.text.tokenize import Tokenizer
from maskfree.text.tokenizer_files import MAX_BYTES

FORMAT = 1
_WEIGHTS, _RUN, TOKENIZER = "weights.safetensors", "run.json", "tokenizer.json"
# Larger files are refused before they are read.
_MOST_BYTES = {_WEIGHTS: 2**33, _RUN: 2**24, TOKENIZER: MAX_BYTES}
# Limits on the prompt templates, which are filled in with every word.
_MOST_TEMPLATES, _MOST_CHARACTERS = 1000, 1000
# Suffix of the tensor that holds the row scales of an int8 tensor.
_SCALE = "::scale"
# Smaller tensors stay float: they would save little.
_INT8_FROM_ELEMENTS = 4096
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
class _Header:
    """Keys of run.json that `load` relies on; other keys may be there too."""

    format: int
    method: str
    config: dict[str, Any]
    name: str
    templates: list[str]
    inference: dict[str, Any] = field(default_factory=dict)
    """Default inference settings of the model, fields of `Inference`."""


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
    if (
        folder.exists()
        and not (folder / _RUN).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise ValueError(f"{folder} exists and is no checkpoint: it is not replaced")

    header = {
        "format": FORMAT,
        "storage": storage,
        "method": type(config).__name__,
        "config": asdict(config.without_pretrained()),
    }

    # Check the types of the keys that `load` relies on.
    dacite.from_dict(_Header, {**run, **header})
    text = json.dumps(header | {**run, **header}, indent=2, ensure_ascii=False, allow_nan=False)

    # A symbolic link stays, and its target is replaced.
    if folder.is_symlink():
        folder = folder.resolve()

    remove_leftovers(folder.parent)
    with writing(folder), unfinished_folder(folder.parent) as unfinished:
        (unfinished / _RUN).write_text(text + "\n", encoding="utf-8")
        tokenizer.save(unfinished / TOKENIZER)
        save_file(_pack(method.state_dict(), storage), unfinished / _WEIGHTS)

        # safetensors makes its file private: give it the permissions of the others.
        usual = (unfinished / _RUN).stat().st_mode & 0o666
        (unfinished / _WEIGHTS).chmod(usual)
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
    run, config = _read_settings(folder, configs)
    tokenizer = Tokenizer.from_file(folder / TOKENIZER)
    _check_size(config, folder)
    try:
        config.check_tokenizer(tokenizer.vocabulary_size, tokenizer.max_length)
    except ValueError as error:
        raise ValueError(f"{folder / TOKENIZER} does not fit {_RUN}: {error}") from error

    # Initial values would be replaced by the weights.
    with _NoRandomFill():
        method = config.build()

    method.load_state_dict(_unpack(folder / _WEIGHTS, method.state_dict()))

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
    return _read_settings(folder, configs)[1]


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
    with open_safetensors(_weights_of(folder)) as file:
        return sorted({name.removesuffix(_SCALE) for name in file.keys()})  # noqa: SIM118 - no dict


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
    with open_safetensors(path) as file:
        stored = set(file.keys())

    # The scales of an int8 tensor are left out with it.
    left_out = {
        name
        for name in stored
        if any(has_prefix(name.removesuffix(_SCALE), prefix) for prefix in without)
    }

    # Match the remaining names with those of the method.
    names = {name: _renamed(name, renamed or {}) for name in stored - left_out}
    shared = {name: state[here] for name, here in names.items() if here in state}

    loaded = {names[name]: tensor for name, tensor in _unpack(path, shared, left_out).items()}
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
        if getattr(func, "__name__", "") in _RANDOM_FILLS:
            tensor = args[0] if args else (kwargs or {})["tensor"]
            # Zeros, not uninitialized memory: trunc_normal_ draws until all values are in bounds.
            tensor.detach().zero_()
            return tensor
        return func(*args, **(kwargs or {}))


def _weights_of(folder: Path) -> Path:
    """File with the weights of a checkpoint."""
    path = whole(folder) / _WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no {_WEIGHTS}")
    return path


def _check_files(folder: Path) -> None:
    """Check a checkpoint, which may come from anywhere, before spending memory on it."""
    for name, most in _MOST_BYTES.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is no checkpoint: it has no {name}")
        if (folder / name).stat().st_size > most:
            raise ValueError(f"{folder / name} is larger than {most} bytes: it is not read")


def _read_settings(
    folder: Path, configs: Mapping[str, type[MethodConfig]]
) -> tuple[dict[str, Any], MethodConfig]:
    """Read run.json and the config of the method in it."""
    path = folder / _RUN
    run = _read_run(path)
    if run["method"] not in configs:
        raise ValueError(
            f"{path}: the method {run['method']!r} is unknown: {', '.join(sorted(configs))}"
        )
    return run, _read_config(configs[run["method"]], run["config"], path)


def _read_run(path: Path) -> dict[str, Any]:
    """Read run.json and check its format and the keys of `_Header`."""
    try:
        run = read_json(path)
        if not isinstance(run, dict):
            raise ValueError("not an object")
        if run.get("format") != FORMAT:
            raise ValueError(
                f"format {run.get('format')!r} is unknown: this version reads {FORMAT}"
            )

        header = dacite.from_dict(_Header, run)
        _check_texts(header)
    except (ValueError, dacite.DaciteError) as error:
        raise ValueError(f"{path} is not a checkpoint's: {error}") from error

    return run


def _read_config(
    config_class: type[MethodConfig], values: dict[str, Any], path: Path
) -> MethodConfig:
    """Build the config; ValueError if values do not fit or refer to other files."""
    # JSON has no tuples and writes whole floats as integers.
    rules = dacite.Config(strict=True, cast=[tuple], type_hooks={float: _whole_numbers_too})
    try:
        config = dacite.from_dict(config_class, values, rules)
        check(config)
    except (dacite.DaciteError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the config does not fit {config_class.__name__}: {error}"
        ) from error

    if names := outside_names(config):
        raise ValueError(
            f"{path}: the config names outside weights or files, {names[0]}: its own are all it may need"
        )

    return config


def _check_texts(header: _Header) -> None:
    """Check the name, which becomes part of file names, and the prompt templates."""
    name = header.name
    if (
        not 0 < len(name) <= 200
        or not name.isprintable()
        or set(name) & set("/\\")
        or name in (".", "..")
    ):
        raise ValueError(
            f"the name {name[:50]!r} is none: it has up to 200 printable characters, but no / and no \\"
        )

    longest = max(map(len, header.templates), default=0)
    if len(header.templates) > _MOST_TEMPLATES or longest > _MOST_CHARACTERS:
        raise ValueError(
            f"there are over {_MOST_TEMPLATES} templates, or one of over {_MOST_CHARACTERS} characters"
        )


def _check_size(config: MethodConfig, folder: Path) -> None:
    """Check that the weights fit the method, before memory is allocated for it."""
    with open_safetensors(folder / _WEIGHTS) as file:
        shapes = _shapes(file)

    contents = Contents(len(shapes), sum(map(math.prod, shapes.values())))
    try:
        method = within(contents, config.build)
    except ValueError as error:
        raise ValueError(f"{folder / _RUN}: {error}") from error

    with _unfit(folder / _WEIGHTS):
        _check_shapes(shapes, method.state_dict())


def _shapes(file: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of an open safetensors file, by name."""
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict


@contextmanager
def _unfit(path: Path) -> Iterator[None]:
    """Name the file in errors about tensors that do not fit."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} does not fit its run.json or is damaged: {error}") from error


def _check_shapes(stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    """Raise ValueError if names or shapes differ; scales of int8 tensors are ignored."""
    # A name with the suffix of scales counts only if there is no tensor to go with it.
    names = {name for name in stored if name.removesuffix(_SCALE) not in stored.keys() - {name}}
    if names != expected.keys():
        raise ValueError(_difference(expected.keys() - names, names - expected.keys()))

    for name in sorted(names):
        if stored[name] != tuple(expected[name].shape):
            raise ValueError(
                f"tensor {name} is {stored[name]} where the method has {tuple(expected[name].shape)}"
            )


def _whole_numbers_too(value: Any) -> Any:
    """Convert an int, but not a bool, to float."""
    return float(value) if type(value) is int else value


def _pack(state: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Convert tensors to their storage format."""
    packed = {}
    for name, tensor in state.items():
        values = tensor.detach().cpu()
        if values.is_floating_point():
            if storage == "int8" and values.ndim >= 2 and values.numel() >= _INT8_FROM_ELEMENTS:
                values, packed[name + _SCALE] = _to_int8(values.float())
            else:
                values = values.to(torch.float16 if storage == "float16" else torch.float32)

            # Integers are finite, so check an int8 tensor by its scales.
            if not packed.get(name + _SCALE, values).isfinite().all():
                raise ValueError(
                    f"the weights {name} are not finite, or too large to store as {storage}"
                )

        # Clone, because safetensors refuses tied weights that share memory.
        packed[name] = values.clone(memory_format=torch.contiguous_format)

    return packed


def _to_int8(values: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit rows and one scale for each row: values are about row * scale."""
    rows = values.flatten(1)
    scales = rows.abs().amax(1) / 127
    # A row of zeros has scale 0, and would be divided by it.
    steps = scales.where(scales > 0, 1)[:, None]
    return (rows / steps).round().to(torch.int8).view(values.shape), scales


def _unpack(
    path: Path, expected: Mapping[str, Tensor], without: Collection[str] = ()
) -> dict[str, Tensor]:
    """Read all tensors but those left out, as float; ValueError if they do not fit."""
    with _unfit(path), open_safetensors(path) as file:
        shapes = {name: shape for name, shape in _shapes(file).items() if name not in without}
        _check_shapes(shapes, expected)
        return {
            name: _restore(file, name, set(shapes), tensor) for name, tensor in expected.items()
        }


def _restore(file: Any, name: str, stored: set[str], expected: Tensor) -> Tensor:
    """Read one tensor; an int8 tensor is multiplied by its scales."""
    values = file.get_tensor(name)
    if name + _SCALE in stored:
        scales = file.get_tensor(name + _SCALE)
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
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{kind}: {', '.join(names[:3])}{more}")
    return "tensors are " + "; ".join(parts)

"""The file run.json of a checkpoint: settings and origin of the model, checked before use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dacite

from maskfree.config.rules import Storage, check, outside_names
from maskfree.files.atomic import read_json
from maskfree.method_config import MethodConfig

FORMAT = 1
"""Version of the checkpoint format; other versions are not read."""

# Limits on the prompt templates, which are filled in with every word.
_MAX_TEMPLATES, _MAX_CHARACTERS = 1000, 1000
# Longest name of a model, in characters.
_MAX_NAME = 200


@dataclass(frozen=True)
class _Header:
    """Keys of run.json that loading relies on; other keys may be there too."""

    format: int
    method: str
    config: dict[str, Any]
    name: str
    templates: list[str]
    inference: dict[str, Any] = field(default_factory=dict)
    """Default inference settings of the model, fields of `Inference`."""
    calibration: dict[str, Any] = field(default_factory=dict)
    """How scores become confidences, fields of `Calibration`."""
    input_ranges: dict[str, Any] = field(default_factory=dict)
    """Least and largest input of layers, for computing in 8 bits."""


def run_text(run: Mapping[str, Any], config: MethodConfig, storage: Storage) -> str:
    """Return the content of run.json.

    Args:
        run: Further keys: "name", "templates" and optionally "inference" settings.
        config: Settings of the method.
        storage: Number format of the weights.

    Returns:
        JSON text.
    """
    header = {
        "format": FORMAT,
        "storage": storage,
        "method": type(config).__name__,
        "config": asdict(config.without_pretrained()),
    }

    # Check the types of the keys that loading relies on.
    dacite.from_dict(_Header, {**run, **header})
    content = json.dumps(header | {**run, **header}, indent=2, ensure_ascii=False, allow_nan=False)
    return content + "\n"


def read_run(
    path: Path, configs: Mapping[str, type[MethodConfig]]
) -> tuple[dict[str, Any], MethodConfig]:
    """Read run.json and the settings of the method in it.

    Args:
        path: The file.
        configs: Methods that may be built, by the name of their config class.

    Returns:
        Content of the file, and the settings of the method.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file has another format or wrong types, names an unknown method, or its
            settings do not fit the method or refer to other files.
    """
    run = _read_checked(path)
    if run["method"] not in configs:
        raise ValueError(
            f"{path}: the method {run['method']!r} is unknown: {', '.join(sorted(configs))}"
        )
    return run, _read_config(configs[run["method"]], run["config"], path)


def _read_checked(path: Path) -> dict[str, Any]:
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
        _check_name(header.name)
        _check_templates(header.templates)
    except (ValueError, dacite.DaciteError) as error:
        raise ValueError(f"{path} is not a checkpoint's: {error}") from error

    return run


def _read_config(
    config_class: type[MethodConfig], values: dict[str, Any], path: Path
) -> MethodConfig:
    """Build the config; ValueError if values do not fit or refer to other files."""
    # JSON has no tuples and writes whole floats as integers.
    rules = dacite.Config(strict=True, cast=[tuple], type_hooks={float: _integer_to_float})
    try:
        config = dacite.from_dict(config_class, values, rules)
        check(config)
    except (dacite.DaciteError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the config does not fit {config_class.__name__}: {error}"
        ) from error

    if names := outside_names(config):
        raise ValueError(
            f"{path}: the config names outside weights or files, {names[0]}: "
            "its own are all it may need"
        )

    return config


def _check_name(name: str) -> None:
    """Check the name of a model, which becomes part of file names."""
    fits = 0 < len(name) <= _MAX_NAME and name.isprintable()
    if not fits or set(name) & set("/\\") or name in (".", ".."):
        raise ValueError(
            f"the name {name[:50]!r} is none: it has up to {_MAX_NAME} printable characters, "
            "but no / and no \\"
        )


def _check_templates(templates: list[str]) -> None:
    """Check the number and the length of the prompt templates."""
    longest = max(map(len, templates), default=0)
    if len(templates) > _MAX_TEMPLATES or longest > _MAX_CHARACTERS:
        raise ValueError(
            f"there are over {_MAX_TEMPLATES} templates, "
            f"or one of over {_MAX_CHARACTERS} characters"
        )


def _integer_to_float(value: Any) -> Any:
    """Convert an int, but not a bool, to float."""
    if type(value) is int:
        return float(value)
    return value

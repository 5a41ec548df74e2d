"""Configurations of networks from transformers, read, changed, and checked before use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskfree.files.atomic import read_json
from maskfree.files.hugging_face import reading
from maskfree.files.tensors import reason
from maskfree.nn.encoder_config import Value
from maskfree.nn.known_settings import MAX_SIZE

# The bundled model needs no transformers, whose import takes longer than a photo: it is imported
# where it is used.
if TYPE_CHECKING:
    import transformers


def read_configuration(
    name: str, weights: str | None, changes: Mapping[str, Value]
) -> transformers.PreTrainedConfig:
    """Create a transformers configuration, from defaults or pretrained weights, with overrides.

    Args:
        name: Name of the configuration class in transformers.
        weights: Folder or Hugging Face name whose config.json gives the starting values; None: the
            class's defaults.
        changes: Fields to override and their values.

    Returns:
        The configuration.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: A change names no field of the configuration, or a value is not accepted.
    """
    import transformers

    kind = getattr(transformers, name)
    known = _fields(kind)
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(
            f"{name} has no field {', '.join(unknown)}: it has {', '.join(sorted(known))}"
        )

    # Check sizes before a network of that size is built.
    _check_sizes(dict(changes), name)
    settings = {}
    if weights is not None:
        settings = settings_of(kind, read_settings(weights))

    # Default configurations log warnings about token ids.
    with quiet():
        try:
            return kind(**{**settings, **changes})
        except Exception as error:  # transformers raises many types for wrong values
            raise ValueError(
                f"transformers makes no {name} of these values: {reason(error)}"
            ) from error


def read_settings(weights: str) -> dict[str, Any]:
    """Read the config.json of pretrained weights.

    Args:
        weights: Local folder or Hugging Face name.

    Returns:
        Content of config.json.

    Raises:
        FileNotFoundError: There is no config.json.
        ValueError: It is damaged, or a number in it exceeds `MAX_SIZE`.
    """
    import transformers

    path = Path(weights) / "config.json"
    if Path(weights).is_file():
        raise FileNotFoundError(
            f"no readable weights in {weights!r}: it is a file, and a folder is expected"
        )

    if Path(weights).is_dir():
        if not path.is_file():
            raise FileNotFoundError(
                f"no readable weights in the folder {weights!r}: it has no config.json"
            )

        settings = read_json(path)
    else:
        # transformers finds the file of a Hugging Face name.
        with quiet(), readable(weights) as local:
            settings = transformers.PreTrainedConfig.get_config_dict(
                weights, local_files_only=local
            )[0]

    if not isinstance(settings, dict):
        raise ValueError(f"{path} is no JSON of settings: it holds no object")

    # transformers returns an empty dict when there is no file.
    if not settings:
        raise FileNotFoundError(
            f"no readable config.json in the folder or Hugging Face name {weights!r}"
        )

    _check_sizes(settings, str(path))
    return settings


def settings_of(kind: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a configuration class has fields for, and ignore all others.

    Ignored settings could name programs, other repositories or computations defined there.

    Args:
        kind: Configuration class of transformers.
        settings: Content of a config.json, of the network or of a model that contains it.

    Returns:
        Settings of the network, without unknown ones.
    """
    if kind.base_config_key:
        settings = settings.get(kind.base_config_key, settings)

    # The configuration of a whole model holds those of its parts.
    if settings.get("model_type") not in (None, kind.model_type):
        for part in settings.values():
            if isinstance(part, dict) and part.get("model_type") == kind.model_type:
                settings = part
                break

    known = {name: value for name, value in settings.items() if name in _fields(kind)}

    # Configurations of parts are filtered in the same way.
    for name, part in kind.sub_configs.items():
        if isinstance(known.get(name), dict):
            known[name] = settings_of(part, known[name])

    return known


def plain_fields(configuration: transformers.PreTrainedConfig) -> dict[str, Value]:
    """Return all values of a configuration that shape the network, enough to build it again.

    Args:
        configuration: Configuration of transformers.

    Returns:
        Field names and values, as plain types that can be written to JSON.
    """
    values = configuration.to_dict()
    plain = {}

    # Published files may hold fields of older versions, so only the class's fields are read.
    for name in sorted(_fields(type(configuration))):
        value = values[name]
        # JSON has no tuples.
        if isinstance(value, tuple):
            value = list(value)
        if isinstance(value, list) and any(isinstance(item, float) for item in value):
            # A list has items of one type, so integers among floats become floats.
            value = [float(item) for item in value]

        if isinstance(value, bool | int | float | str | list):
            plain[name] = value

    return plain


def _fields(kind: type[transformers.PreTrainedConfig]) -> set[str]:
    """Return the fields of a configuration class, without those that all classes share."""
    with quiet():
        return set(kind().to_dict()) - _base_fields()


@cache
def _base_fields() -> frozenset[str]:
    """Fields that all configurations share; they do not shape the network."""
    import transformers

    return frozenset(transformers.PreTrainedConfig().to_dict())


def _check_sizes(value: Any, name: str) -> None:
    """Raise ValueError for a number so large that transformers would run out of memory."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_sizes(item, f"{name}: {key}")

    elif isinstance(value, list):
        for item in value:
            _check_sizes(item, name)

    # Written with `not`, so that NaN is refused as well.
    elif isinstance(value, int | float) and not abs(value) <= MAX_SIZE:
        raise ValueError(f"{name} is {value}: {MAX_SIZE:,} is the most")


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress transformers' progress bars and loading reports.

    `pretrained.make_tower` checks by itself what was loaded.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    # Other code that uses transformers keeps its own log settings.
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def readable(weights: str) -> Iterator[bool]:
    """Wrap `hugging_face.reading` and turn its failures into one-line errors.

    Args:
        weights: Local folder or Hugging Face name.

    Yields:
        Whether only local files may be read.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: The weights are damaged.
    """
    with reading(weights) as local:
        try:
            yield local
        except OSError as error:
            where = "Hugging Face name"
            if Path(weights).is_dir():
                where = "folder"
            raise FileNotFoundError(f"no readable weights in the {where} {weights!r}") from error
        except Exception as error:  # damaged files raise many types
            raise ValueError(
                f"the weights {weights!r} are damaged, or do not fit: {reason(error)}"
            ) from error

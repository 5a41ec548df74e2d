"""Towers of transformers: from a configuration, or from published weights, strictly and silently."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from transformers.utils import logging

from maskfree.files.atomic import read_json
from maskfree.files.hugging_face import reading
from maskfree.files.tensors import (
    Contents,
    checked_state,
    open_safetensors,
    read_saved,
    reason,
    within,
)
from maskfree.nn.efficientnet_lite import is_efficientnet_lite, read_efficientnet_lite
from maskfree.nn.encoder_config import Value

MAX_SIZE = 2**20
"""The largest number in a configuration: vocabularies have up to 256,000 words."""

_BASE_FIELDS = frozenset(transformers.PreTrainedConfig().to_dict())


def read_configuration(
    name: str, weights: str | None, changes: Mapping[str, Value]
) -> transformers.PreTrainedConfig:
    """Make the configuration class NAME of transformers, from WEIGHTS' folder if given, with CHANGES applied.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: a change names no field of the configuration.
    """
    kind = getattr(transformers, name)
    known = _fields(kind)
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(
            f"{name} has no field {', '.join(unknown)}: it has {', '.join(sorted(known))}"
        )
    _check_sizes(dict(changes), name)
    settings = {} if weights is None else _settings_of(kind, read_settings(weights))
    with _quiet():  # also of a default's remarks on token ids
        try:
            return kind(**{**settings, **changes})
        except Exception as error:  # it checks values in its own ways
            raise ValueError(
                f"transformers makes no {name} of these values: {reason(error)}"
            ) from error


def read_settings(weights: str) -> dict[str, Any]:
    """Read config.json of the folder or Hugging Face name WEIGHTS.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged, or a size in it is larger than any that is needed.
    """
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
        with _quiet(), _readable(weights) as local:
            settings = transformers.PreTrainedConfig.get_config_dict(
                weights, local_files_only=local
            )[0]
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is no JSON of settings: it holds no object")
    if not settings:  # what transformers makes of no file
        raise FileNotFoundError(
            f"no readable config.json in the folder or Hugging Face name {weights!r}"
        )
    _check_sizes(settings, str(path))
    return settings


def _check_sizes(value: Any, name: str) -> None:
    """Raise ValueError where a number in VALUE is so large that transformers would fill the memory with it."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_sizes(item, f"{name}: {key}" if isinstance(value, dict) else name)
    elif isinstance(value, int | float) and not abs(value) <= MAX_SIZE:
        raise ValueError(f"{name} is {value}: {MAX_SIZE:,} is the most")


def _settings_of(kind: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part of SETTINGS that the configuration class KIND has fields for: nothing else in a file is believed.

    What is left out can name programs, other repositories and ways to compute that come from there.
    """
    settings = settings.get(kind.base_config_key, settings) if kind.base_config_key else settings
    if settings.get("model_type") not in (None, kind.model_type):
        own = (part for part in settings.values() if isinstance(part, dict))
        settings = next(
            (part for part in own if part.get("model_type") == kind.model_type), settings
        )
    known = {name: value for name, value in settings.items() if name in _fields(kind)}
    for name, part in kind.sub_configs.items():
        if isinstance(known.get(name), dict):
            known[name] = _settings_of(part, known[name])
    return known


def _fields(kind: type[transformers.PreTrainedConfig]) -> set[str]:
    with _quiet():
        return set(kind().to_dict()) - _BASE_FIELDS


def plain_fields(configuration: transformers.PreTrainedConfig) -> dict[str, Value]:
    """Return every value of a configuration that shapes the network, as plain values, enough to make it again."""
    values = configuration.to_dict()
    plain = {}
    for name in sorted(
        _fields(type(configuration))
    ):  # published files keep fields of older versions too
        value = list(values[name]) if isinstance(values[name], tuple) else values[name]
        if isinstance(value, list) and any(isinstance(item, float) for item in value):
            value = [
                float(item) for item in value
            ]  # whole numbers, too: a list has items of one kind
        if isinstance(value, bool | int | float | str | list):
            plain[name] = value
    return plain


def make_tower(
    name: str, configuration: transformers.PreTrainedConfig, weights: str | None, **options: Any
) -> Any:
    """Build the model class NAME of transformers in float32, at random or with all its tensors read from WEIGHTS.

    Raises:
        ValueError: WEIGHTS lacks a tensor of the model.
    """
    kind = getattr(transformers, name)
    if weights is None:
        try:
            return kind(configuration, **options)
        except Exception as error:  # it checks values in its own ways, and torch has others
            raise ValueError(
                f"transformers cannot build {name} of these values: {reason(error)}"
            ) from error
    if Path(weights).is_dir():
        _check_weights(Path(weights), lambda: kind(configuration, **options))
    options |= {"config": configuration, "dtype": torch.float32, "output_loading_info": True}
    with _quiet(), _readable(weights) as local:
        tower, report = kind.from_pretrained(weights, local_files_only=local, **options)
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ValueError(
            f"the weights {weights!r} do not fill {name}: {missing[0]} and {len(missing) - 1} others"
        )
    return tower.train()


def _check_weights(folder: Path, build: Callable[[], nn.Module]) -> None:
    """See that a folder has weights, and that the network that BUILD makes is no larger.

    Raises:
        FileNotFoundError: It has none.
        ValueError: They are damaged, or the network is larger.
    """
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder} holds an adapter, which is not read: give the folder of a whole model"
        )
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise FileNotFoundError(
            f"no readable weights in the folder {str(folder)!r}: model.safetensors is missing"
        )
    num_tensors = 0
    for path in files:
        if path.suffix == ".safetensors":
            with open_safetensors(path) as file:
                num_tensors += len(file.keys())
        else:
            num_tensors += len(checked_state(read_saved(path), path, "no tensors alone"))
    num_bytes = sum(path.stat().st_size for path in files)
    try:
        within(Contents(num_tensors, num_bytes), build)
    except ValueError as error:
        raise ValueError(
            f"{folder / 'config.json'} does not fit the weights beside it: {error}"
        ) from error


class FrozenBatchNorm(nn.Module):
    """Batch normalization by stored statistics, also while training; scale and shift still learn."""

    def __init__(self, trained: nn.BatchNorm2d):
        super().__init__()
        self.weight, self.bias, self.eps = trained.weight, trained.bias, trained.eps
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.register_buffer("running_mean", trained.running_mean)
        self.register_buffer("running_var", trained.running_var)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalize each channel."""
        return nn.functional.batch_norm(
            features,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=False,
            eps=self.eps,
        )


def freeze_batch_norms(module: nn.Module) -> None:
    """Replace every batch normalization inside MODULE by one whose statistics stay as they are."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm(child))
        else:
            freeze_batch_norms(child)


def fold_batch_norms(module: nn.Module) -> None:
    """Put every frozen batch normalization behind a convolution inside MODULE into that one's weights; for inference.

    Same features up to rounding, and the normalization, a third of MobileNetV2's time on a CPU, is gone. It goes by the
    names of transformers' layers; others stay as they are.
    """
    for layer in module.modules():
        parts = dict(layer.named_children())
        convolution, norm = parts.get("convolution"), parts.get("normalization")
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, FrozenBatchNorm):
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            layer.register_module("normalization", nn.Identity())


def pad_inside_convolutions(tower: nn.Module) -> None:
    """Let the convolutions of a MobileNetV2 pad for themselves, as TensorFlow would; same features, same weight names.

    transformers copies every feature map into a padded one, also where there is nothing to pad. Sides must divide by
    the output stride. The activations, whose inputs nobody else needs, work in place.
    """
    for parent in list(tower.modules()):
        for name, layer in list(parent.named_children()):
            parts = OrderedDict(layer.named_children())
            convolution = parts.get("convolution")
            if not isinstance(convolution, nn.Conv2d):
                continue
            missing = max(convolution.kernel_size[0] - convolution.stride[0], 0)
            before, after = (
                side * convolution.dilation[0] for side in (missing // 2, missing - missing // 2)
            )
            if before == after:
                convolution.padding = (before, before)
            else:
                parts["padding"] = nn.ZeroPad2d((before, after, before, after))
                parts.move_to_end("padding", last=False)
            if isinstance(parts.get("activation"), nn.ReLU6):
                parts["activation"] = nn.ReLU6(inplace=True)
            setattr(parent, name, nn.Sequential(parts))


def initialize_convolutions(tower: nn.Module) -> None:
    """Draw convolutions anew such that signals keep their size without live batch norms, which transformers counts on.

    A convolution that an activation follows keeps the second moment; one without adds to a residual, or feeds the next
    block, and halves it. Source: He et al. 2015, eq. 14 (arXiv:1502.01852).
    """
    for layer in tower.modules():
        parts = dict(layer.named_children())
        if isinstance(parts.get("convolution"), nn.Conv2d):
            activated = not isinstance(parts.get("activation", nn.Identity()), nn.Identity)
            weight = layer.get_parameter("convolution.weight")
            fan_in = weight[0].numel()
            nn.init.normal_(weight, std=((2.0 if activated else 0.5) / fan_in) ** 0.5)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and loading reports off the terminal; `make_tower` checks for itself."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _readable(weights: str) -> Iterator[bool]:
    """As `hugging_face.reading`; what cannot be read is said in one line."""
    with reading(weights) as local:
        try:
            yield local
        except OSError as error:
            where = "folder" if Path(weights).is_dir() else "Hugging Face name"
            raise FileNotFoundError(f"no readable weights in the {where} {weights!r}") from error
        except Exception as error:  # damaged files lead to errors of all kinds
            raise ValueError(
                f"the weights {weights!r} are damaged, or do not fit: {reason(error)}"
            ) from error


def _classifier(weights: str) -> nn.Module:
    """The image classifier in WEIGHTS, made of known fields of its configuration alone."""
    settings = read_settings(weights)
    with _quiet(), _readable(weights) as local:
        kind = type(transformers.AutoConfig.for_model(str(settings.get("model_type"))))
        labels = settings.get("id2label")
        names = (
            {"id2label": labels}
            if isinstance(labels, dict)
            else {"num_labels": settings.get("num_labels", 2)}
        )
        configuration = kind(**_settings_of(kind, settings), **names)
        if Path(weights).is_dir():
            _check_weights(
                Path(weights),
                lambda: transformers.AutoModelForImageClassification.from_config(configuration),
            )
        return transformers.AutoModelForImageClassification.from_pretrained(
            weights,
            config=configuration,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=local,
        )


def read_classifier(weights: str, num_classes: int) -> nn.Linear:
    """Read the last layer of the image classifier in WEIGHTS; a first class "background" of its own is left out.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: it has not NUM_CLASSES classes.
    """
    if is_efficientnet_lite(weights):
        _, classifier = read_efficientnet_lite(weights)
        if classifier.out_features != num_classes:
            raise ValueError(f"the weights {weights!r} have no classifier of {num_classes} classes")
        return classifier
    model = _classifier(weights)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    surplus = layers[-1].out_features - num_classes if layers else -1
    if surplus not in (0, 1):
        raise ValueError(f"the weights {weights!r} have no classifier of {num_classes} classes")
    classifier = nn.Linear(layers[-1].in_features, num_classes)
    with torch.no_grad():
        classifier.weight.copy_(layers[-1].weight[surplus:])
        classifier.bias.copy_(layers[-1].bias[surplus:])
    return classifier

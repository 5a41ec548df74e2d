"""Towers of transformers: from a configuration, or from published weights, strictly and silently."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from transformers.utils import logging

from maskfree.nn.encoder_config import Value

_BASE_FIELDS = frozenset(transformers.PreTrainedConfig().to_dict())


def read_configuration(name: str, weights: str | None, changes: Mapping[str, Value]) -> transformers.PreTrainedConfig:
    """Make the configuration class NAME of transformers, from WEIGHTS' folder if given, with CHANGES applied.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: a change names no field of the configuration.
    """
    kind = getattr(transformers, name)
    known = _fields(kind)
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(f"{name} has no field {', '.join(unknown)}: it has {', '.join(sorted(known))}")
    with _quiet():  # also of a default's remarks on token ids
        if weights is None:
            return kind(**changes)
        with _readable(weights):
            return kind.from_pretrained(weights, **changes)


def _fields(kind: type[transformers.PreTrainedConfig]) -> set[str]:
    with _quiet():
        return set(kind().to_dict()) - _BASE_FIELDS


def plain_fields(configuration: transformers.PreTrainedConfig) -> dict[str, Value]:
    """Return every value of a configuration that shapes the network, as plain values, enough to make it again."""
    values = configuration.to_dict()
    plain = {}
    for name in sorted(_fields(type(configuration))):  # published files keep fields of older versions too
        value = list(values[name]) if isinstance(values[name], tuple) else values[name]
        if isinstance(value, list) and any(isinstance(item, float) for item in value):
            value = [float(item) for item in value]  # whole numbers, too: a list has items of one kind
        if isinstance(value, bool | int | float | str | list):
            plain[name] = value
    return plain


def make_tower(name: str, configuration: transformers.PreTrainedConfig, weights: str | None, **options: Any) -> Any:
    """Build the model class NAME of transformers in float32, at random or with all its tensors read from WEIGHTS.

    Raises:
        ValueError: WEIGHTS lacks a tensor of the model.
    """
    kind = getattr(transformers, name)
    if weights is None:
        return kind(configuration, **options)
    with _quiet(), _readable(weights):
        tower, report = kind.from_pretrained(
            weights, config=configuration, dtype=torch.float32, output_loading_info=True, **options
        )
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ValueError(f"the weights {weights!r} do not fill {name}: {missing[0]} and {len(missing) - 1} others")
    return tower.train()


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by stored statistics, also while training; scale and shift still learn."""

    def __init__(self, trained: nn.BatchNorm2d):
        super().__init__()
        self.weight, self.bias, self.eps = trained.weight, trained.bias, trained.eps
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.register_buffer("running_mean", trained.running_mean)
        self.register_buffer("running_var", trained.running_var)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise each channel."""
        return nn.functional.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def freeze_batch_norms(module: nn.Module) -> None:
    """Replace every batch normalisation inside MODULE by one whose statistics stay as they are."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm(child))
        else:
            freeze_batch_norms(child)


def fold_batch_norms(module: nn.Module) -> None:
    """Put every frozen batch normalisation behind a convolution inside MODULE into that one's weights; for inference.

    Same features up to rounding, and the normalisation, a third of MobileNetV2's time on a CPU, is gone. It goes by the
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
            before, after = (side * convolution.dilation[0] for side in (missing // 2, missing - missing // 2))
            if before == after:
                convolution.padding = (before, before)
            else:
                parts["padding"] = nn.ZeroPad2d((before, after, before, after))
                parts.move_to_end("padding", last=False)
            if isinstance(parts.get("activation"), nn.ReLU6):
                parts["activation"] = nn.ReLU6(inplace=True)
            setattr(parent, name, nn.Sequential(parts))


def initialise_convolutions(tower: nn.Module) -> None:
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
def _readable(weights: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = "folder" if Path(weights).is_dir() else "Hugging Face name or folder"
        raise FileNotFoundError(f"no readable weights in the {where} {weights!r}") from error


def read_classifier(weights: str, num_classes: int) -> nn.Linear:
    """Read the last layer of the image classifier in WEIGHTS; a first class "background" of its own is left out.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: it has not NUM_CLASSES classes.
    """
    with _quiet(), _readable(weights):
        model = transformers.AutoModelForImageClassification.from_pretrained(weights, dtype=torch.float32)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    surplus = layers[-1].out_features - num_classes if layers else -1
    if surplus not in (0, 1):
        raise ValueError(f"the weights {weights!r} have no classifier of {num_classes} classes")
    classifier = nn.Linear(layers[-1].in_features, num_classes)
    with torch.no_grad():
        classifier.weight.copy_(layers[-1].weight[surplus:])
        classifier.bias.copy_(layers[-1].bias[surplus:])
    return classifier

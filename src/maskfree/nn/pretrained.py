"""Networks from transformers, built from a configuration or loaded from published weights."""

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
"""Largest number allowed in a configuration; known vocabularies have up to 256,000 words."""

# Fields that all configurations share; they do not shape the network.
_BASE_FIELDS = frozenset(transformers.PreTrainedConfig().to_dict())


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
    kind = getattr(transformers, name)
    known = _fields(kind)
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(
            f"{name} has no field {', '.join(unknown)}: it has {', '.join(sorted(known))}"
        )

    # Check sizes before a network of that size is built.
    _check_sizes(dict(changes), name)
    settings = {} if weights is None else _settings_of(kind, read_settings(weights))

    # Default configurations log warnings about token ids.
    with _quiet():
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
        with _quiet(), _readable(weights) as local:
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


def _check_sizes(value: Any, name: str) -> None:
    """Raise ValueError for a number so large that transformers would run out of memory."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_sizes(item, f"{name}: {key}" if isinstance(value, dict) else name)

    # Written with `not`, so that NaN is refused as well.
    elif isinstance(value, int | float) and not abs(value) <= MAX_SIZE:
        raise ValueError(f"{name} is {value}: {MAX_SIZE:,} is the most")


def _settings_of(kind: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a configuration class has fields for, and ignore all others.

    Ignored settings could name programs, other repositories or computations defined there.
    """
    settings = settings.get(kind.base_config_key, settings) if kind.base_config_key else settings

    # The configuration of a whole model holds those of its parts.
    if settings.get("model_type") not in (None, kind.model_type):
        own = (part for part in settings.values() if isinstance(part, dict))
        settings = next(
            (part for part in own if part.get("model_type") == kind.model_type), settings
        )

    known = {name: value for name, value in settings.items() if name in _fields(kind)}

    # Configurations of parts are filtered in the same way.
    for name, part in kind.sub_configs.items():
        if isinstance(known.get(name), dict):
            known[name] = _settings_of(part, known[name])

    return known


def _fields(kind: type[transformers.PreTrainedConfig]) -> set[str]:
    """Return the fields of a configuration class, without those that all classes share."""
    with _quiet():
        return set(kind().to_dict()) - _BASE_FIELDS


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
        # JSON has no tuples.
        value = list(values[name]) if isinstance(values[name], tuple) else values[name]
        if isinstance(value, list) and any(isinstance(item, float) for item in value):
            # A list has items of one type, so integers among floats become floats.
            value = [float(item) for item in value]

        if isinstance(value, bool | int | float | str | list):
            plain[name] = value

    return plain


def make_tower(
    name: str, configuration: transformers.PreTrainedConfig, weights: str | None, **options: Any
) -> Any:
    """Build a network of transformers in float32, with random or pretrained weights.

    Args:
        name: Name of the model class in transformers.
        configuration: Configuration of the network.
        weights: Folder or Hugging Face name from which all tensors are loaded; None: random
            initialization.
        options: Further keyword arguments of the model class.

    Returns:
        The network, in training mode.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: The configuration is not accepted, or the weights are damaged or lack a tensor.
    """
    kind = getattr(transformers, name)
    if weights is None:
        try:
            return kind(configuration, **options)
        except Exception as error:  # transformers and torch raise many types for wrong values
            raise ValueError(
                f"transformers cannot build {name} of these values: {reason(error)}"
            ) from error

    # A local folder may have any content: check sizes before memory is allocated.
    if Path(weights).is_dir():
        _check_weights(Path(weights), lambda: kind(configuration, **options))

    # The loading report lists the tensors that are missing.
    options |= {"config": configuration, "dtype": torch.float32, "output_loading_info": True}
    with _quiet(), _readable(weights) as local:
        tower, report = kind.from_pretrained(weights, local_files_only=local, **options)

    # transformers would initialize missing tensors at random.
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ValueError(
            f"the weights {weights!r} do not fill {name}: {missing[0]} and {len(missing) - 1} others"
        )

    return tower.train()


def _check_weights(folder: Path, build: Callable[[], nn.Module]) -> None:
    """Check that a folder has weights and that the network is not larger than they are.

    Raises:
        FileNotFoundError: The folder has no weights.
        ValueError: The weights are damaged, or the network is larger than they are.
    """
    # An adapter names a base model elsewhere, which transformers would load.
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder} holds an adapter, which is not read: give the folder of a whole model"
        )

    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise FileNotFoundError(
            f"no readable weights in the folder {str(folder)!r}: model.safetensors is missing"
        )

    # Count the stored tensors, and compare them with those of the network.
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
    """Batch normalization with fixed statistics, also in training; scale and shift are trained."""

    def __init__(self, trained: nn.BatchNorm2d):
        """Take over the parameters and statistics of a layer.

        Args:
            trained: Batch normalization layer to replace.
        """
        super().__init__()

        # The same parameters and names as in the replaced layer.
        self.weight, self.bias, self.eps = trained.weight, trained.bias, trained.eps
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.register_buffer("running_mean", trained.running_mean)
        self.register_buffer("running_var", trained.running_var)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalize each channel by the stored statistics.

        Args:
            features: Feature map of shape (b, c, h, w).

        Returns:
            Normalized feature map.
        """
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
    """Replace all batch normalization layers inside a module by frozen ones.

    Args:
        module: Module that is changed in place.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm(child))
        else:
            freeze_batch_norms(child)


def fold_batch_norms(module: nn.Module) -> None:
    """Fold frozen batch normalization layers into the preceding convolutions, for inference.

    Features stay the same up to rounding. Unfolded, the normalization takes a third of
    MobileNetV2's time on a CPU. Layers are found by the names of transformers; others stay as they
    are.

    Args:
        module: Module that is changed in place.
    """
    for layer in module.modules():
        parts = dict(layer.named_children())
        convolution, norm = parts.get("convolution"), parts.get("normalization")

        # transformers keeps a convolution and its normalization in one layer.
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
    """Let MobileNetV2's convolutions do the padding of TensorFlow, instead of transformers' copies.

    transformers copies every feature map into a padded one, even without padding. Features and
    weight names stay the same; image sides must be divisible by the output stride. Activations work
    in place, since nothing else needs their inputs.

    Args:
        tower: MobileNetV2 that is changed in place.
    """
    for parent in list(tower.modules()):
        for name, layer in list(parent.named_children()):
            parts = OrderedDict(layer.named_children())
            convolution = parts.get("convolution")
            if not isinstance(convolution, nn.Conv2d):
                continue

            # TensorFlow's SAME padding puts the odd pixel after the image, not before it.
            missing = max(convolution.kernel_size[0] - convolution.stride[0], 0)
            before, after = (
                side * convolution.dilation[0] for side in (missing // 2, missing - missing // 2)
            )

            # Conv2d can only pad both sides equally.
            if before == after:
                convolution.padding = (before, before)
            else:
                parts["padding"] = nn.ZeroPad2d((before, after, before, after))
                parts.move_to_end("padding", last=False)

            if isinstance(parts.get("activation"), nn.ReLU6):
                parts["activation"] = nn.ReLU6(inplace=True)

            setattr(parent, name, nn.Sequential(parts))


def initialize_convolutions(tower: nn.Module) -> None:
    """Initialize convolutions so that activations keep their scale with frozen batch norms.

    transformers' initialization relies on batch statistics. A convolution followed by an activation
    keeps the second moment; one without is added to a residual, or feeds the next block, and halves
    it.

    Args:
        tower: Network that is changed in place.

    Source: He et al. 2015, eq. 14 (arXiv:1502.01852).
    """
    for layer in tower.modules():
        parts = dict(layer.named_children())
        if isinstance(parts.get("convolution"), nn.Conv2d):
            activated = not isinstance(parts.get("activation", nn.Identity()), nn.Identity)
            weight = layer.get_parameter("convolution.weight")
            fan_in = weight[0].numel()

            # Variance 2 / fan_in keeps the second moment through a ReLU, 0.5 / fan_in halves it.
            nn.init.normal_(weight, std=((2.0 if activated else 0.5) / fan_in) ** 0.5)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress transformers' progress bars and loading reports; `make_tower` checks by itself."""
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
def _readable(weights: str) -> Iterator[bool]:
    """Wrap `hugging_face.reading` and turn its failures into one-line errors."""
    with reading(weights) as local:
        try:
            yield local
        except OSError as error:
            where = "folder" if Path(weights).is_dir() else "Hugging Face name"
            raise FileNotFoundError(f"no readable weights in the {where} {weights!r}") from error
        except Exception as error:  # damaged files raise many types
            raise ValueError(
                f"the weights {weights!r} are damaged, or do not fit: {reason(error)}"
            ) from error


def _classifier(weights: str) -> nn.Module:
    """Load an image classifier, built from known fields of its configuration only."""
    settings = read_settings(weights)
    with _quiet(), _readable(weights) as local:
        # for_model only knows transformers' own classes: no code of a repository is run.
        kind = type(transformers.AutoConfig.for_model(str(settings.get("model_type"))))
        labels = settings.get("id2label")

        # The number of labels sets the size of the last layer.
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
    """Load the last layer of an image classifier.

    A first class "background", if the classifier has one in addition, is left out.

    Args:
        weights: Local folder or Hugging Face name of the classifier.
        num_classes: Number of classes that the layer should have.

    Returns:
        Linear layer from features to class logits.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: The classifier does not have `num_classes` classes.
    """
    if is_efficientnet_lite(weights):
        _, classifier = read_efficientnet_lite(weights)
        if classifier.out_features != num_classes:
            raise ValueError(f"the weights {weights!r} have no classifier of {num_classes} classes")

        return classifier

    model = _classifier(weights)

    # The last linear layer is the classifier.
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]

    # One class more than asked for is a background class, which comes first.
    surplus = layers[-1].out_features - num_classes if layers else -1
    if surplus not in (0, 1):
        raise ValueError(f"the weights {weights!r} have no classifier of {num_classes} classes")

    classifier = nn.Linear(layers[-1].in_features, num_classes)

    with torch.no_grad():
        classifier.weight.copy_(layers[-1].weight[surplus:])
        classifier.bias.copy_(layers[-1].bias[surplus:])

    return classifier

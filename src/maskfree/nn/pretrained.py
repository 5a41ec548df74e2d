"""Networks and classifiers from transformers, with random or published weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from maskfree.files.tensors import (
    Contents,
    checked_state,
    open_safetensors,
    read_saved,
    reason,
    within,
)
from maskfree.nn.configurations import quiet, read_settings, readable, settings_of
from maskfree.nn.efficientnet_lite import is_efficientnet_lite, read_efficientnet_lite

# Imported where it is used, since the bundled model does without.
if TYPE_CHECKING:
    import transformers


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
    import transformers

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
    with quiet(), readable(weights) as local:
        tower, report = kind.from_pretrained(weights, local_files_only=local, **options)

    # transformers would initialize missing tensors at random.
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ValueError(
            f"the weights {weights!r} do not fill {name}: "
            f"{missing[0]} and {len(missing) - 1} others"
        )

    return tower.train()


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
    surplus = -1
    if layers:
        surplus = layers[-1].out_features - num_classes

    if surplus not in (0, 1):
        raise ValueError(f"the weights {weights!r} have no classifier of {num_classes} classes")

    classifier = nn.Linear(layers[-1].in_features, num_classes)

    with torch.no_grad():
        classifier.weight.copy_(layers[-1].weight[surplus:])
        classifier.bias.copy_(layers[-1].bias[surplus:])

    return classifier


def _classifier(weights: str) -> nn.Module:
    """Load an image classifier, built from known fields of its configuration only."""
    import transformers

    settings = read_settings(weights)
    with quiet(), readable(weights) as local:
        # for_model only knows transformers' own classes: no code of a repository is run.
        kind = type(transformers.AutoConfig.for_model(str(settings.get("model_type"))))
        labels = settings.get("id2label")

        # The number of labels sets the size of the last layer.
        if isinstance(labels, dict):
            size: dict[str, Any] = {"id2label": labels}
        else:
            size = {"num_labels": settings.get("num_labels", 2)}

        configuration = kind(**settings_of(kind, settings), **size)
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

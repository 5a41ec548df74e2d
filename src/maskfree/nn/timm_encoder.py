"""Image encoders with networks from timm."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from maskfree.files.tensors import read_state
from maskfree.nn.convolutions import freeze_batch_norms
from maskfree.nn.encoder_config import ImageEncoderConfig, Value
from maskfree.nn.image_encoder import ImageEncoder

# Arguments of timm.create_model that shape the network.
_TIMM_ARGUMENTS = ("img_size", "in_chans", "out_indices", "patch_size")


def build_timm(config: ImageEncoderConfig) -> ImageEncoder:
    """Build a feature extractor of timm, with weights from a local file.

    Args:
        config: Settings of the encoder, whose family is timm.

    Returns:
        The encoder, with frozen batch normalization statistics.

    Raises:
        ValueError: timm is not installed, the architecture is not one of timm's, or the weights do
            not fit it.
        OSError: There is no file of weights.
    """
    try:
        import timm  # pyright: ignore[reportMissingImports] - an extra that drags in torchvision
    except ImportError as error:
        raise ValueError(
            "the family timm needs the package timm: pip install maskfree[zoo]"
        ) from error

    name, arguments = _timm_arguments(config)

    try:
        # Without pooling and classifier, as a list of feature maps.
        tower = timm.create_model(name, pretrained=False, features_only=True, **arguments)
    except Exception as error:  # timm raises many types for wrong arguments
        raise ValueError(f"timm cannot make {name!r}: {str(error).splitlines()[0]}") from error

    if config.weights is not None:
        _fill_timm(tower, Path(config.weights))

    freeze_batch_norms(tower)
    return ImageEncoder(
        tower=tower,
        read=_last_map,
        channels=tower.feature_info.channels()[-1],
        patch_size=tower.feature_info.reduction()[-1],
        statistics="imagenet",
    )


def _timm_arguments(config: ImageEncoderConfig) -> tuple[str, dict[str, Value]]:
    """Return the name of a timm architecture and the arguments that shape it.

    Raises:
        ValueError: The name belongs to a repository, file or folder, or an argument does not shape
            the network.
    """
    arguments: dict[str, Value] = {"out_indices": [-1]} | config.architecture
    name = str(arguments.pop("name", ""))

    # A plain name only: timm would load prefixes such as hf-hub: from elsewhere.
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(
            f"the architecture {name!r} is no name that timm itself has for one, as resnet50"
        )

    # Arguments may come from somebody else's checkpoint, so only those in the list pass.
    if unknown := sorted(arguments.keys() - _TIMM_ARGUMENTS):
        raise ValueError(
            f"timm is not told {unknown[0]}: an architecture has name, {', '.join(_TIMM_ARGUMENTS)}"
        )

    if config.output_stride:
        arguments["output_stride"] = config.output_stride

    return name, arguments


def _fill_timm(tower: nn.Module, file: Path) -> None:
    """Load all weights of a timm network from a file, which may hold more tensors.

    Raises:
        OSError: There is no such file.
        ValueError: The file is damaged or does not fit the network.
    """
    try:
        # The file may also hold the classifier, which a feature extractor does not have.
        missing = tower.load_state_dict(read_state(file), strict=False).missing_keys
    except RuntimeError as error:
        raise ValueError(
            f"{file} does not fit the architecture: {str(error).splitlines()[-1].strip()}"
        ) from error

    if missing:
        raise ValueError(
            f"{file} does not fill the architecture: {missing[0]} and {len(missing) - 1} others"
        )


def _last_map(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the last feature map of a network that returns several."""
    return tower(images)[-1]

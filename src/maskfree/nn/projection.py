"""Projections from encoder features to a shared embedding space or to prototypes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.classifier_mixture import ClassifierMixture
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.nn.pyramid_pooling import PyramidPooling

_pointwise: Callable[[int, int], nn.Module] = partial(nn.Conv2d, kernel_size=1)
# Kinds that are not for pixels, and what they are for.
_VECTORS = {"near": "texts", "batchnorm_mlp": "vectors"}


def _without_bias(layer: nn.Module) -> nn.Module:
    """Remove the bias of a layer."""
    # Registered as None, so that the attribute exists.
    layer.register_parameter("bias", None)
    return layer


class NearIdentity(nn.Module):
    """Linear map of unit vectors that is initialized as the identity."""

    def __init__(self, dim: int):
        """Create the map.

        Args:
            dim: Number of channels of input and output.
        """
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        # The identity; `nn.init.eye_` would load torch's compiler where only sizes are checked.
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.weight.diagonal().fill_(1)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Normalize and map features.

        Args:
            features: Features of any norm.

        Returns:
            Mapped features, not normalized.
        """
        return self.linear(F.normalize(features, dim=-1))


class BatchNormMlp(nn.Module):
    """Two linear maps with batch normalization and a ReLU between."""

    def __init__(self, *, channels: int, hidden: int, dim: int):
        """Create the layers.

        Args:
            channels: Number of input channels.
            hidden: Number of hidden channels.
            dim: Number of output channels.
        """
        super().__init__()
        self.widen = nn.Linear(channels, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.narrow = nn.Linear(hidden, dim)

    def forward(self, features: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        """Map features; batch statistics are taken over all vectors.

        Args:
            features: Feature vectors with any batch axes.

        Returns:
            Mapped features, not normalized.
        """
        # BatchNorm1d takes a single batch axis.
        normalized = self.norm(self.widen(features.flatten(0, -2)))
        return self.narrow(F.relu(normalized)).unflatten(0, features.shape[:-1])


def project_pixels(config: ProjectionConfig, channels: int, dim: int) -> nn.Module:
    """Build the projection of feature maps, which has the same weights at every pixel.

    Args:
        config: Settings of the projection.
        channels: Number of channels of the features.
        dim: Number of channels of the embeddings.

    Returns:
        Module that maps (b, channels, hp, wp) to (b, dim, hp, wp).

    Raises:
        ValueError: The kind is for vectors only, or keeps the number of channels while `dim`
            differs.
    """
    if config.kind == "classifier_mixture":
        return ClassifierMixture(channels=channels, num_classes=config.num_classes, dim=dim)
    if config.kind == "pyramid":
        return PyramidPooling(channels=channels, width=config.hidden, dim=dim)
    return _build(config, _pointwise, channels, dim)


def project_vectors(config: ProjectionConfig, channels: int, dim: int) -> nn.Module:
    """Build the projection of feature vectors.

    Args:
        config: Settings of the projection.
        channels: Number of channels of the features.
        dim: Number of channels of the embeddings.

    Returns:
        Module that maps (*b, channels) to (*b, dim).

    Raises:
        ValueError: The kind is for pixels only, or keeps the number of channels while `dim`
            differs.
    """
    if config.kind == "batchnorm_mlp":
        return BatchNormMlp(channels=channels, hidden=config.hidden, dim=dim)
    return _build(config, nn.Linear, channels, dim)


def _build(
    config: ProjectionConfig, layer: Callable[[int, int], nn.Module], channels: int, dim: int
) -> nn.Module:
    """Build the kinds that exist for pixels and vectors alike, from linear layers of one type."""
    if config.kind == "linear":
        linear = layer(channels, dim)
        if not config.bias:
            linear = _without_bias(linear)
        return linear

    if config.kind == "mlp":
        return nn.Sequential(layer(channels, config.hidden), nn.GELU(), layer(config.hidden, dim))

    if config.kind in ("classifier_mixture", "pyramid") or (
        config.kind in _VECTORS and layer is not nn.Linear
    ):
        raise ValueError(
            f"the projection {config.kind!r} is for {_VECTORS.get(config.kind, 'pixels')} only"
        )

    # The remaining kinds cannot change the number of channels.
    if channels != dim:
        raise ValueError(
            f"the projection {config.kind!r} keeps {channels} channels, but the embedding has {dim}"
        )

    if config.kind == "near":
        return NearIdentity(dim)
    return nn.Identity()

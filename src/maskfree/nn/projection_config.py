"""Settings of projections from encoder features to embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import Width

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ProjectionConfig:
    """Settings of a projection from encoder features to embeddings."""

    kind: Literal[
        "identity", "linear", "mlp", "batchnorm_mlp", "near", "classifier_mixture", "pyramid"
    ] = "linear"
    """Type of projection. "identity": none; "linear": one linear map; "mlp": two linear maps with a
    GELU between; "batchnorm_mlp": two linear maps with batch normalization and a ReLU between;
    "near": a linear map of unit vectors that starts as the identity; "classifier_mixture": for
    pixels, the expected embedding over learned classes; "pyramid": for pixels, pyramid pooling."""
    hidden: Width = 2048
    """Number of hidden channels of "mlp", "batchnorm_mlp" and "pyramid"."""
    num_classes: Width = 1000
    """Number of learned classes of "classifier_mixture"."""
    bias: bool = True
    """Add a bias in "linear"; CLIP's projections have none."""

    def build_for_pixels(self, channels: int, dim: int) -> nn.Module:
        """Build the projection of feature maps, which has the same weights at every pixel.

        Args:
            channels: Number of channels of the features.
            dim: Number of channels of the embeddings.

        Returns:
            Module that maps (b, channels, hp, wp) to (b, dim, hp, wp).
        """
        from maskfree.nn.projection import project_pixels

        return project_pixels(self, channels, dim)

    def build_for_vectors(self, channels: int, dim: int) -> nn.Module:
        """Build the projection of feature vectors.

        Args:
            channels: Number of channels of the features.
            dim: Number of channels of the embeddings.

        Returns:
            Module that maps (*b, channels) to (*b, dim).
        """
        from maskfree.nn.projection import project_vectors

        return project_vectors(self, channels, dim)

"""Settings of how features become embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import Width

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ProjectionConfig:
    """How features become embeddings.

    As they are, by one linear map, by two with a GELU between or with a batch normalization and a ReLU, by a linear map
    of unit vectors that starts as the identity ("near"), or for pixels through visual words or with pyramid pooling.
    """

    kind: Literal["identity", "linear", "mlp", "batchnorm_mlp", "near", "words", "pyramid"] = (
        "linear"
    )
    hidden: Width = 2048  # width between the maps of "mlp", "batchnorm_mlp" and "pyramid"
    num_words: Width = 1000  # of "words"
    bias: bool = True  # of "linear"; CLIP's projections have none

    def build_for_pixels(self, channels: int, dim: int) -> nn.Module:
        """Make the map of a (b, c, hp, wp) feature map to DIM channels, the same at every pixel."""
        from maskfree.nn.projection import project_pixels

        return project_pixels(self, channels, dim)

    def build_for_vectors(self, channels: int, dim: int) -> nn.Module:
        """Make the map of (*b, c) features to DIM."""
        from maskfree.nn.projection import project_vectors

        return project_vectors(self, channels, dim)

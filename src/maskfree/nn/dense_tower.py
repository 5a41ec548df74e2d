"""Base class of image encoders for dense prediction: one embedding per patch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskfree.nn.dense_patches import DensePatches
from maskfree.nn.image_encoder import STATISTICS


class DenseTower(nn.Module, ABC):
    """Image encoder of an image-text model that returns one embedding per patch."""

    def __init__(self, *, tower: nn.Module, statistics: str):
        """Wrap a network.

        Args:
            tower: Network with its pretrained weights.
            statistics: Name of the color normalization, a key of `STATISTICS`.
        """
        super().__init__()
        self.tower: Any = tower
        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = STATISTICS[statistics]

        # Constants that follow from the settings are not saved with the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hp wp"]:
        """Embed each patch.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Patch embeddings, not normalized.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        return self.project(self.read(images).features)

    @abstractmethod
    def read(self, images: Float[Tensor, "b 3 h w"]) -> DensePatches:
        """Compute the features and keys of each patch, before the projection.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Features after the last normalization, and keys.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """

    @abstractmethod
    def project(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Project features to the embedding space of the texts, each patch by itself.

        Args:
            features: Patch features as `read` returns them.

        Returns:
            Patch embeddings, not normalized.
        """

    @abstractmethod
    def embed_whole(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embed whole images as the network was trained to, by its own last block and pooling.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Image embeddings, not normalized.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Return the side of a patch.

        Returns:
            Side in pixels.
        """

    @property
    @abstractmethod
    def dim(self) -> int:
        """Return the number of channels of the embeddings.

        Returns:
            Number of channels.
        """

    def grid(self, images: Float[Tensor, "b 3 h w"]) -> tuple[int, int]:
        """Return the patch grid of images.

        Args:
            images: Images of any size.

        Returns:
            Rows and columns of patches.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"an image of {height}x{width} px does not divide "
                f"into patches of {self.patch_size} px"
            )
        return height // self.patch_size, width // self.patch_size

    def normalized(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Normalize the colors of images for the network.

        Args:
            images: RGB images in [0, 1].

        Returns:
            Images with the mean and standard deviation that the network was trained with.
        """
        return (images - self.mean) / self.deviation

"""Image encoder: a network that returns a feature map, with its color normalization."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation per RGB channel, for colors in [0, 1], by name."""


class ImageEncoder(nn.Module):
    """Image encoder that returns one feature per patch, for RGB images in [0, 1] of any size."""

    def __init__(
        self,
        *,
        tower: nn.Module,
        read: Callable[[nn.Module, Tensor, int], Tensor],
        channels: int,
        patch_size: int,
        statistics: str,
    ):
        """Wrap a network as an image encoder.

        Args:
            tower: Network that takes normalized images.
            read: Function of (tower, images, patch_size) that returns the feature map.
            channels: Number of channels of the feature map.
            patch_size: Side of a patch in pixels.
            statistics: Name of the color normalization, a key of `STATISTICS`.
        """
        super().__init__()
        # Convolutions are about three times faster on CPUs with channels last.
        self.tower = tower.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.channels = channels
        self.patch_size = patch_size
        self._read = read

        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = STATISTICS[statistics]

        # Constants that follow from the settings are not saved with the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hp wp"]:
        """Compute the features of each patch.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Feature map, not normalized.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"an image of {height}x{width} px does not divide "
                f"into patches of {self.patch_size} px"
            )
        return self._read(self.tower, self.normalized(images), self.patch_size)

    def normalized(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Normalize the colors of images for the network.

        Args:
            images: RGB images in [0, 1].

        Returns:
            Normalized images, with channels last in memory.
        """
        return ((images - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)

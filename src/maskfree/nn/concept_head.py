"""Segmentation head that predicts caption nouns from feature maps of several strides."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.efficientnet_lite import InvertedResidual

FINE, MIDDLE, COARSE = 8, 16, 32
"""Strides, in pixels, of the feature maps that the head takes."""


class ConceptHead(nn.Module):
    """Predict logits of concepts, and of an additional class "other", at a stride of 8 pixels.

    The coarse map is added to the middle one, inverted bottlenecks follow, and the fine map refines
    the result.
    """

    def __init__(
        self, *, channels: tuple[int, int, int], num_concepts: int, width: int, num_blocks: int
    ):
        """Create the layers.

        Args:
            channels: Number of channels of the fine, the middle and the coarse map.
            num_concepts: Number of concepts, without "other".
            width: Number of channels before the last layer.
            num_blocks: Number of inverted bottlenecks at the middle stride.
        """
        super().__init__()
        fine, middle, coarse = channels

        self.coarse = nn.Conv2d(coarse, middle, 1)

        # Inverted bottlenecks with an expansion of 6 and kernels of 5x5 pixels.
        self.blocks = nn.Sequential(
            *(InvertedResidual(middle, middle, 6, 5, 1, 1, keeps=True) for _ in range(num_blocks))
        )
        self.fine = nn.Sequential(
            nn.Conv2d(fine, fine, 1, bias=False), nn.BatchNorm2d(fine), nn.ReLU6()
        )

        both = middle + fine

        # Depthwise, then pointwise convolution of the joined maps.
        self.join = nn.Sequential(
            nn.Conv2d(both, both, 3, padding=1, groups=both, bias=False),
            nn.BatchNorm2d(both),
            nn.ReLU6(),
            nn.Conv2d(both, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU6(),
        )

        # Both strides predict logits, which are added.
        self.name_middle = nn.Conv2d(middle, num_concepts + 1, 1)
        self.name_fine = nn.Conv2d(width, num_concepts + 1, 1)

    def forward(
        self,
        fine: Float[Tensor, "b cf hf wf"],
        middle: Float[Tensor, "b cm hm wm"],
        coarse: Float[Tensor, "b cc hc wc"],
    ) -> Float[Tensor, "b k hf wf"]:
        """Predict logits.

        Args:
            fine: Feature map of stride 8.
            middle: Feature map of stride 16.
            coarse: Feature map of stride 32.

        Returns:
            Logits at stride 8; the last class is "other".
        """
        hidden = self.blocks(middle + _enlarged(self.coarse(coarse), middle))

        # Refine the middle map with the fine one, at the fine stride.
        joined = self.join(torch.cat([_enlarged(hidden, fine), self.fine(fine)], dim=1))
        return self.name_fine(joined) + _enlarged(self.name_middle(hidden), fine)


def _enlarged(features: Tensor, like: Tensor) -> Tensor:
    """Resize features to the size of another map."""
    return F.interpolate(features, like.shape[2:], mode="bilinear", align_corners=False)

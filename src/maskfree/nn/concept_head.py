"""A head that finds the nouns of captions in the maps of an image tower, finer than the tower's own patches."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.efficientnet_lite import Block

FINE, MIDDLE, COARSE = 8, 16, 32
"""Strides, in pixels, of the maps that the head reads."""


class ConceptHead(nn.Module):
    """Logits of concepts and of one more entry, "other", at a stride of 8 pixels.

    The coarse map joins the middle one, a few inverted bottlenecks follow, and the fine map sharpens the result.
    """

    def __init__(
        self, *, channels: tuple[int, int, int], num_concepts: int, width: int, num_blocks: int
    ):
        super().__init__()
        fine, middle, coarse = channels
        self.coarse = nn.Conv2d(coarse, middle, 1)
        self.blocks = nn.Sequential(
            *(Block(middle, middle, 6, 5, 1, 1, keeps=True) for _ in range(num_blocks))
        )
        self.fine = nn.Sequential(
            nn.Conv2d(fine, fine, 1, bias=False), nn.BatchNorm2d(fine), nn.ReLU6()
        )
        both = middle + fine
        self.join = nn.Sequential(
            nn.Conv2d(both, both, 3, padding=1, groups=both, bias=False),
            nn.BatchNorm2d(both),
            nn.ReLU6(),
            nn.Conv2d(both, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU6(),
        )
        self.name_middle = nn.Conv2d(middle, num_concepts + 1, 1)
        self.name_fine = nn.Conv2d(width, num_concepts + 1, 1)

    def forward(
        self,
        fine: Float[Tensor, "b cf hf wf"],
        middle: Float[Tensor, "b cm hm wm"],
        coarse: Float[Tensor, "b cc hc wc"],
    ) -> Float[Tensor, "b k hf wf"]:
        """Return the logits; the last entry is "other"."""
        hidden = self.blocks(middle + _enlarged(self.coarse(coarse), middle))
        joined = self.join(torch.cat([_enlarged(hidden, fine), self.fine(fine)], dim=1))
        return self.name_fine(joined) + _enlarged(self.name_middle(hidden), fine)


def _enlarged(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, like.shape[2:], mode="bilinear", align_corners=False)

"""Settings of the DeepLab head that corrects a known projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskfree.config.rules import Width

if TYPE_CHECKING:
    from torch import nn

    from maskfree.nn.deeplab import ResidualHead

# Dilations of the head's atrous convolutions, in patches: up to 6 * 16 pixels around each.
_DILATIONS = (1, 3, 6)


@dataclass(frozen=True)
class CorrectionConfig:
    """DeepLab head added as a residual to a known projection. Not in the paper.

    The head is zero at the start, so that the student starts as its teacher.
    """

    width: Width = 128
    """Number of channels inside the head."""

    def build(self, known: nn.Module, channels: int, embed_dim: int) -> ResidualHead:
        """Build the head around the known projection.

        Args:
            known: Projection to which the head is added.
            channels: Number of channels of the image features.
            embed_dim: Dimension of the embeddings.

        Returns:
            The sum of both.
        """
        from maskfree.nn.deeplab import ASPP, ResidualHead

        pyramid = ASPP(channels=channels, width=self.width, dim=embed_dim, dilations=_DILATIONS)
        return ResidualHead(known, pyramid)

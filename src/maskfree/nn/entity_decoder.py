"""Decoder of masked entity completion in OVSegmentor."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskfree.nn.transformer import Block, CrossBlock


class EntityDecoder(nn.Module):
    """Transformer layer that completes masked entities of a caption from image groups.

    Cross-attention from text to groups, then self-attention, and the sum of both. Features of
    another width than the decoder's go through a linear map first.

    Source: arXiv:2301.09121, eq. 8.

    Differs: as in the released code, both inputs and the result are normalized, and the
    cross-attention's output is added to the self-attention's.
    """

    def __init__(
        self, *, dim: int, text_channels: int, num_heads: int, group_channels: int | None = None
    ):
        """Create the layers.

        Args:
            dim: Number of channels of the decoder.
            text_channels: Number of channels of the text features.
            num_heads: Number of attention heads.
            group_channels: Number of channels of the groups; None: `dim`.
        """
        super().__init__()
        self.dim = dim
        self.widen = _linear(text_channels, dim)
        self.narrow = _linear(group_channels or dim, dim)
        self.norm_text = nn.LayerNorm(dim)
        self.norm_groups = nn.LayerNorm(dim)
        self.cross = CrossBlock(dim=dim, num_heads=num_heads)
        self.block = Block(dim=dim, num_heads=num_heads)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        questions: Float[Tensor, "b l c"],
        groups: Float[Tensor, "b g e"],
        attended: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Complete masked texts from the groups of their images.

        Args:
            questions: Token features of captions whose entities are masked.
            groups: Group features of the images.
            attended: True for tokens that may be attended to; None: all, also padding, as in the
                released code.

        Returns:
            Completed text, one vector per token.
        """
        groups = self.norm_groups(self.narrow(groups))
        found = self.cross(self.norm_text(self.widen(questions)), groups)

        # The released code adds the cross-attention's output once more.
        return self.norm(self.block(found, attended) + found)


def _linear(channels: int, dim: int) -> nn.Module:
    """Linear map to another number of channels; none where they agree."""
    if channels == dim:
        return nn.Identity()
    return nn.Linear(channels, dim)

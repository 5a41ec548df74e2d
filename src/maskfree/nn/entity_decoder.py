"""The decoder of masked entity completion: a caption with its entities masked looks them up in the photo's groups."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from maskfree.nn.transformer import Block, CrossBlock


class EntityDecoder(nn.Module):
    """One transformer layer: cross-attention from text to groups, then self-attention, and the sum of both.

    Texts of another width than the groups go through a linear map first. Source: arXiv:2301.09121, eq. 8. Differs, as
    in the released code: both inputs and the result are normalized, and the cross-attention's output is added to the
    self-attention's.
    """

    def __init__(self, *, dim: int, text_channels: int, num_heads: int):
        super().__init__()
        self.widen = nn.Identity() if text_channels == dim else nn.Linear(text_channels, dim)
        self.norm_text = nn.LayerNorm(dim)
        self.norm_groups = nn.LayerNorm(dim)
        self.cross = CrossBlock(dim=dim, num_heads=num_heads)
        self.block = Block(dim=dim, num_heads=num_heads)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        questions: Float[Tensor, "b l c"],
        groups: Float[Tensor, "b g d"],
        seen: Bool[Tensor, "b l"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Return the completed text, one vector per token.

        Tokens look at those that are SEEN, by default at padding as well, as in the released code.
        """
        found = self.cross(self.norm_text(self.widen(questions)), self.norm_groups(groups))
        return self.norm(self.block(found, seen) + found)

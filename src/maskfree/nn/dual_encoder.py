"""Encoders with their projections: images and texts in the space that they share."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.encoders import ImageEncoder
from maskfree.nn.text_encoders import TextEncoder
from maskfree.types import Tokens


class ImageProjector(nn.Module):
    """Image encoder and projection: one embedding per patch, in the space of the texts."""

    def __init__(self, encoder: ImageEncoder, projection: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.projection = projection

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hp wp"]:
        """Return the pixel embeddings, not normalized, so that their mean weighs sure pixels more."""
        return self.projection(self.encoder(images))


class TextProjector(nn.Module):
    """Text encoder and projection."""

    def __init__(self, encoder: TextEncoder, projection: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.projection = projection

    def forward(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Return the text embeddings; unit norm."""
        return F.normalize(self.projection(self.encoder(tokens)), dim=-1)

"""Encoders with projections that map images and texts to a shared embedding space."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.image_encoder import ImageEncoder
from maskfree.nn.text_encoders import TextEncoder
from maskfree.types import Tokens


class ImageProjector(nn.Module):
    """Image encoder followed by a projection to one embedding per patch."""

    def __init__(self, encoder: ImageEncoder, projection: nn.Module):
        """Combine an encoder and a projection.

        Args:
            encoder: Image encoder.
            projection: Map of a feature map to the embedding dimension, the same at every pixel.
        """
        super().__init__()
        self.encoder = encoder
        self.projection = projection

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hp wp"]:
        """Embed each patch of the images.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of the encoder's patch size.

        Returns:
            Patch embeddings; not normalized, so that confident patches have more weight in a mean.
        """
        return self.projection(self.encoder(images))


class TextProjector(nn.Module):
    """Text encoder followed by a projection to one embedding per text."""

    def __init__(self, encoder: TextEncoder, projection: nn.Module):
        """Combine an encoder and a projection.

        Args:
            encoder: Text encoder.
            projection: Map of text features to the embedding dimension.
        """
        super().__init__()
        self.encoder = encoder
        self.projection = projection

    def forward(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Embed texts.

        Args:
            tokens: Token ids and mask of the texts.

        Returns:
            Unit-norm text embeddings.
        """
        return F.normalize(self.projection(self.encoder(tokens)), dim=-1)

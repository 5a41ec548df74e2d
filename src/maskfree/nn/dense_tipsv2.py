"""Dense prediction with TIPSv2: patch tokens that are aligned with texts by their training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from maskfree.nn.dense_transformer import DenseTransformer
from maskfree.nn.last_block import BlockParts


class DenseTipsv2(DenseTransformer):
    """TIPSv2 image encoder, whose patch tokens are in the space of the texts already.

    Source: arXiv:2604.12012.
    """

    def project(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Return the features, which lie in the embedding space of the texts.

        Args:
            features: Patch features as `read` returns them.

        Returns:
            The same.
        """
        return features

    def pool(self, hidden: Float[Tensor, "b n c"]) -> Float[Tensor, "b d"]:
        """Embed images by the first of their class tokens, trained with captions of the Web.

        Args:
            hidden: Tokens after the last block as it was trained.

        Returns:
            Image embeddings, not normalized.
        """
        return self.final_norm(hidden[:, 0])

    def embed(
        self, images: Float[Tensor, "b 3 h w"], grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Compute the tokens that enter the first block.

        Args:
            images: Images with normalized colors.
            grid: Rows and columns of patches.

        Returns:
            Class token, register tokens, then the patches in row-major order.
        """
        # The network resizes its positions by itself, bilinear with antialiasing.
        return self.tower.embeddings(images)

    def final_norm(self, hidden: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Apply the normalization after the last block.

        Args:
            hidden: Tokens after the last block.

        Returns:
            Normalized tokens.
        """
        return self.tower.layernorm(hidden)

    def block_parts(self, layer: Any) -> BlockParts:
        """Name the modules of a block.

        Args:
            layer: One of `blocks`.

        Returns:
            Its modules under common names.
        """
        attention = layer.attention
        return BlockParts(
            norm=layer.norm1,
            query=attention.q_proj,
            key=attention.k_proj,
            value=attention.v_proj,
            output=lambda mixed: layer.layer_scale1(attention.o_proj(mixed)),
            feed_forward=lambda hidden: layer.layer_scale2(layer.mlp(layer.norm2(hidden))),
            num_heads=attention.num_attention_heads,
        )

    @property
    def blocks(self) -> Sequence[Any]:
        """Return the transformer blocks.

        Returns:
            Blocks, first to last.
        """
        return self.tower.encoder.layer

    @property
    def num_prefix_tokens(self) -> int:
        """Return the number of tokens before those of the patches.

        Returns:
            The class token and the register tokens.
        """
        return 1 + self.tower.config.num_register_tokens

    @property
    def dim(self) -> int:
        """Return the number of channels of the embeddings.

        Returns:
            Number of channels.
        """
        return self.tower.config.hidden_size

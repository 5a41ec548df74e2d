"""Dense prediction with SigLIP's vision transformers: one embedding per patch.

SigLIP has no class token and pools by attention. Each patch is embedded as if it were the only one,
by the value path of the pooling. SigLIP 2 of a fixed size has the same network; NaFlex reads images
of any size and shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.dense_clip_config import LastBlock
from maskfree.nn.dense_transformer import DenseTransformer
from maskfree.nn.last_block import BlockParts, clip_block_parts
from maskfree.nn.positions import resize_positions


class DensePooledTransformer(DenseTransformer):
    """SigLIP's blocks and pooling; a subclass embeds the patches."""

    def project(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Project features to the embedding space of the texts, each patch by itself.

        Args:
            features: Patch features as `read` returns them.

        Returns:
            Patch embeddings, not normalized.
        """
        tokens = features.movedim(1, -1)

        # Value path of the pooling: over one patch, its softmax attention is 1.
        head = self.tower.head
        width = tokens.shape[-1]
        # The joined projection holds query, key and value, in this order.
        values = F.linear(
            tokens,
            head.attention.in_proj_weight[2 * width :],
            head.attention.in_proj_bias[2 * width :],
        )
        pooled = head.attention.out_proj(values)

        return (pooled + head.mlp(head.layernorm(pooled))).movedim(-1, 1)

    def pool(self, hidden: Float[Tensor, "b n c"]) -> Float[Tensor, "b d"]:
        """Embed images by SigLIP's attention pooling.

        Args:
            hidden: Tokens after the last block as it was trained.

        Returns:
            Image embeddings, not normalized.
        """
        return self.tower.head(self.final_norm(hidden))

    def final_norm(self, hidden: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Apply the normalization after the last block.

        Args:
            hidden: Tokens after the last block.

        Returns:
            Normalized tokens.
        """
        return self.tower.post_layernorm(hidden)

    def block_parts(self, layer: Any) -> BlockParts:
        """Name the modules of a block.

        Args:
            layer: One of `blocks`.

        Returns:
            Its modules under common names.
        """
        return clip_block_parts(layer)

    @property
    def blocks(self) -> Sequence[Any]:
        """Return the transformer blocks.

        Returns:
            Blocks, first to last.
        """
        return self.tower.encoder.layers

    @property
    def num_prefix_tokens(self) -> int:
        """Return the number of tokens before those of the patches.

        Returns:
            0: there is no class token.
        """
        return 0

    @property
    def dim(self) -> int:
        """Return the number of channels of the embeddings.

        Returns:
            Number of channels.
        """
        return self.tower.config.hidden_size


class DenseSiglip(DensePooledTransformer):
    """SigLIP image encoder that returns one embedding per patch, for images of any size."""

    def __init__(
        self,
        *,
        tower: nn.Module,
        last_block: LastBlock,
        statistics: str,
        positions: Literal["size", "factor"],
    ):
        """Wrap an image encoder of transformers.

        Args:
            tower: A `SiglipVisionModel`.
            last_block: Changes to the last transformer block.
            statistics: Name of the color normalization, a key of `STATISTICS`.
            positions: Resize the position embedding to the grid size or by a scale factor.
        """
        super().__init__(tower=tower, last_block=last_block, statistics=statistics)
        self._positions_by: Literal["size", "factor"] = positions

    def embed(
        self, images: Float[Tensor, "b 3 h w"], grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Compute the tokens that enter the first block.

        Args:
            images: Images with normalized colors.
            grid: Rows and columns of patches.

        Returns:
            The patches in row-major order.
        """
        embeddings = self.tower.embeddings
        # transformers' own embedding supports only one way to resize positions.
        patches = embeddings.patch_embedding(images).flatten(2).mT
        positions = resize_positions(
            embeddings.position_embedding.weight,
            grid,
            num_prefix_tokens=0,
            by=self._positions_by,
        )
        return patches + positions


class DenseNaflex(DensePooledTransformer):
    """SigLIP 2 NaFlex image encoder that returns one embedding per patch.

    NaFlex was trained on images of their own shape, with 128 to 1024 patches.

    Source: arXiv:2502.14786, section 2.4.2.
    """

    def embed(
        self, images: Float[Tensor, "b 3 h w"], grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Compute the tokens that enter the first block.

        Args:
            images: Images with normalized colors.
            grid: Rows and columns of patches.

        Returns:
            The patches in row-major order.
        """
        # The network takes lists of patches, whose pixels have their colors last.
        rows = images.unflatten(2, (grid[0], -1)).unflatten(4, (grid[1], -1))
        patches = rows.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

        shapes = torch.tensor([grid] * len(images), device=images.device)
        return self.tower.embeddings(patches, shapes)

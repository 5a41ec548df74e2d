"""Dense prediction with CLIP's vision transformers: one embedding per patch.

CLIP is trained for one embedding per image, and its last block mixes patches for that purpose.
`LastBlock` sets what the block does instead; its presets are published methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskfree.nn.dense_clip_config import LastBlock
from maskfree.nn.dense_transformer import DenseTransformer
from maskfree.nn.last_block import BlockParts, clip_block_parts
from maskfree.nn.positions import resize_positions


class DenseClip(DenseTransformer):
    """CLIP or MetaCLIP 2 image encoder that returns one embedding per patch, for any size."""

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
            tower: A `CLIPVisionModelWithProjection` or `MetaClip2VisionModelWithProjection`.
            last_block: Changes to the last transformer block.
            statistics: Name of the color normalization, a key of `STATISTICS`.
            positions: Resize the position embedding to the grid size or by a scale factor.
        """
        super().__init__(tower=tower, last_block=last_block, statistics=statistics)
        self._positions_by: Literal["size", "factor"] = positions

    def project(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Project features to the embedding space of the texts, each patch by itself.

        Args:
            features: Patch features as `read` returns them.

        Returns:
            Patch embeddings, not normalized.
        """
        return self.tower.visual_projection(features.movedim(1, -1)).movedim(-1, 1)

    def pool(self, hidden: Float[Tensor, "b n c"]) -> Float[Tensor, "b d"]:
        """Embed images by their class token.

        Args:
            hidden: Tokens after the last block as it was trained.

        Returns:
            Image embeddings, not normalized.
        """
        return self.tower.visual_projection(self.final_norm(hidden[:, 0]))

    def embed(
        self, images: Float[Tensor, "b 3 h w"], grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Compute the tokens that enter the first block.

        Args:
            images: Images with normalized colors.
            grid: Rows and columns of patches.

        Returns:
            The class token, then the patches in row-major order.
        """
        vision = self.tower.vision_model
        # transformers' own embedding supports only one way to resize positions.
        patches = vision.embeddings.patch_embedding(images).flatten(2).mT
        positions = resize_positions(
            vision.embeddings.position_embedding.weight,
            grid,
            num_prefix_tokens=1,
            by=self._positions_by,
        )

        first = vision.embeddings.class_embedding.expand(len(patches), 1, -1)
        return vision.pre_layrnorm(torch.cat([first, patches], dim=1) + positions)

    def final_norm(self, hidden: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Apply the normalization after the last block.

        Args:
            hidden: Tokens after the last block.

        Returns:
            Normalized tokens.
        """
        return self.tower.vision_model.post_layernorm(hidden)

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
        return self.tower.vision_model.encoder.layers

    @property
    def num_prefix_tokens(self) -> int:
        """Return the number of tokens before those of the patches.

        Returns:
            1, the class token.
        """
        return 1

    @property
    def dim(self) -> int:
        """Return the number of channels of the embeddings.

        Returns:
            Number of channels.
        """
        return self.tower.config.projection_dim

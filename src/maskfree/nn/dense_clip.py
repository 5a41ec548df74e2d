"""Dense prediction with CLIP and SigLIP image encoders: one embedding per patch.

CLIP is trained for one embedding per image, and its last block mixes patches for that purpose.
`LastBlock` sets what the block does instead; its presets are published methods.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.dense_clip_config import LastBlock
from maskfree.nn.dense_patches import DensePatches
from maskfree.nn.image_encoder import STATISTICS
from maskfree.nn.self_attention import gaussian_windows, pair_attention, window_attention


class DenseClip(nn.Module):
    """CLIP or SigLIP image encoder that returns one embedding per patch, for images of any size.

    SigLIP has no class token and pools by attention. Each patch is embedded as if it were the only
    one, by the value path of the pooling.
    """

    def __init__(
        self,
        *,
        tower: nn.Module,
        last_block: LastBlock,
        positions: Literal["size", "factor"],
        statistics: str,
        siglip: bool,
    ):
        """Wrap an image encoder of transformers.

        Args:
            tower: A `CLIPVisionModelWithProjection` or a `SiglipVisionModel`.
            last_block: Changes to the last transformer block.
            positions: Resize the position embedding to the grid size or by a scale factor.
            statistics: Name of the color normalization, a key of `STATISTICS`.
            siglip: The tower is a SigLIP.
        """
        super().__init__()
        self.tower: Any = tower
        self.last_block = last_block
        self.siglip = siglip
        self._positions_by = positions
        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = STATISTICS[statistics]

        # Constants that follow from the settings are not saved with the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hp wp"]:
        """Embed each patch.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Patch embeddings, not normalized.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        return self.project(self.read(images).features)

    def read(self, images: Float[Tensor, "b 3 h w"]) -> DensePatches:
        """Compute the features and keys of each patch, before the projection.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Features after the last normalization, and keys.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"an image of {height}x{width} px does not divide "
                f"into patches of {self.patch_size} px"
            )

        grid = (height // self.patch_size, width // self.patch_size)
        vision = self._vision
        hidden = self._embed_patches((images - self.mean) / self.deviation, grid)
        for layer in vision.encoder.layers[:-1]:
            hidden = layer(hidden, None)

        # Keys are taken from the last block whatever it does with them.
        last = vision.encoder.layers[-1]
        normalized = last.layer_norm1(hidden)
        keys = last.self_attn.k_proj(normalized)[:, self._skipped :].mT.unflatten(2, grid)

        hidden = self._finish(last, hidden, normalized, grid)[:, self._skipped :]
        return DensePatches(vision.post_layernorm(hidden).mT.unflatten(2, grid), keys)

    def project(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Project features to the embedding space of the texts, each patch by itself.

        Args:
            features: Patch features as `read` returns them.

        Returns:
            Patch embeddings, not normalized.
        """
        tokens = features.movedim(1, -1)
        if not self.siglip:
            return self.tower.visual_projection(tokens).movedim(-1, 1)

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

    @property
    def patch_size(self) -> int:
        """Return the side of a patch.

        Returns:
            Side in pixels.
        """
        return self.tower.config.patch_size

    @property
    def dim(self) -> int:
        """Return the number of channels of the embeddings.

        Returns:
            Number of channels.
        """
        if self.siglip:
            return self.tower.config.hidden_size
        return self.tower.config.projection_dim

    @property
    def _vision(self) -> Any:
        """Return the vision transformer."""
        if self.siglip:
            return self.tower
        return self.tower.vision_model

    @property
    def _skipped(self) -> int:
        """Return the number of tokens before those of the patches."""
        # SigLIP has no class token.
        return int(not self.siglip)

    def _embed_patches(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the input tokens of the first block."""
        vision = self._vision
        # transformers' own embedding supports only one way to resize positions.
        patches = vision.embeddings.patch_embedding(images).flatten(2).mT
        positions = self._positions(vision.embeddings.position_embedding.weight, grid)
        if self.siglip:
            return patches + positions

        # CLIP's class token comes before the patches.
        first = vision.embeddings.class_embedding.expand(len(patches), 1, -1)
        return vision.pre_layrnorm(torch.cat([first, patches], dim=1) + positions)

    def _positions(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        """Resize the position embedding to a patch grid; the class token's position stays."""
        first, rest = table[: self._skipped], table[self._skipped :]

        side = round(len(rest) ** 0.5)
        if grid == (side, side):
            return table

        # Resize the learned square grid to that of the image.
        square = rest.T.reshape(1, -1, side, side)
        if self._positions_by == "size":
            resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
        else:
            # Without the 0.1, rounding could lose a row.
            factor = [(length + 0.1) / side for length in grid]
            resized = F.interpolate(
                square, scale_factor=factor, mode="bicubic", align_corners=False
            )

        return torch.cat([first, resized[0].flatten(1).T])

    def _finish(
        self, layer: Any, hidden: Tensor, normalized: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Apply the last block as `last_block` sets it."""
        block, attention = self.last_block, layer.self_attn
        heads = attention.num_heads
        parts = {
            "q": attention.q_proj(normalized),
            "k": attention.k_proj(normalized),
            "v": attention.v_proj(normalized),
        }
        if block.attention == "value":
            # Each patch reads its own value only.
            mixed = parts["v"]
        else:
            # Split the channels into attention heads.
            split = {}
            for name, part in parts.items():
                split[name] = part.unflatten(2, (heads, -1)).transpose(1, 2)

            # The window covers patches; a class token gets no bonus.
            windows = None
            if block.neighbors is not None:
                windows = gaussian_windows(grid, block.neighbors).to(hidden)
                windows = F.pad(windows, (self._skipped, 0, self._skipped, 0))

            if block.attention == "window":
                assert windows is not None
                mixed = window_attention(split["q"], split["k"], windows) @ split["v"]
            else:
                mixed = pair_attention(split, block.attention.split("+"), windows)

            mixed = mixed.transpose(1, 2).flatten(2)

        # The second half of the block and its residual connections.
        mixed = attention.out_proj(mixed)
        if block.residual:
            hidden = hidden + mixed
        else:
            hidden = mixed

        if block.feed_forward:
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        return hidden

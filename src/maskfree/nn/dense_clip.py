"""Dense features of CLIP's and SigLIP's image towers: an embedding per patch, in the space of the texts.

CLIP is trained for one embedding a photo, and its last block mixes patches for that. What the block does for patches
is chosen by `LastBlock`; the presets are the published ways.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.dense_clip_config import LastBlock
from maskfree.nn.dense_patches import DensePatches
from maskfree.nn.encoders import STATISTICS
from maskfree.nn.self_attention import gaussian_windows, pair_attention, window_attention


class DenseClip(nn.Module):
    """A CLIP's image tower read densely: RGB in [0, 1] in, one embedding per patch out, at any size.

    TOWER is a `transformers.CLIPVisionModelWithProjection` or a `transformers.SiglipVisionModel`. SigLIP has no class
    token and pools by attention; there a patch is embedded as if the photo had no other: by the value path of the
    pooling, on the features of its `last_block`.
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
        super().__init__()
        self.tower: Any = tower
        self.last_block = last_block
        self.siglip = siglip
        self._positions_by = positions
        self.mean: Tensor
        self.deviation: Tensor
        mean, deviation = STATISTICS[statistics]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d hp wp"]:
        """Return the embedding of each patch, not normalized.

        Raises:
            ValueError: a side is no multiple of `patch_size`.
        """
        return self.project(self.read(images).features)

    def read(
        self, images: Float[Tensor, "b 3 h w"], proxy: Float[Tensor, "b n n"] | None = None
    ) -> DensePatches:
        """Return features after the last normalization, and keys, for each patch.

        PROXY is an attention over patches that another encoder saw, n = rows x columns of its grid, which has the
        photo's aspect ratio (`self_attention.proxy_attention`); it takes the place of the last block's, values are
        brought to its grid, and features come on that. Source: arXiv:2408.04883, section 3.3.

        Raises:
            ValueError: a side is no multiple of `patch_size`, or PROXY's grid does not fit the photo.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"an image of {height}x{width} px does not divide into patches of {self.patch_size} px"
            )
        grid = (height // self.patch_size, width // self.patch_size)
        vision = self._vision
        hidden = self._embed_patches((images - self.mean) / self.deviation, grid)
        for layer in vision.encoder.layers[:-1]:
            hidden = layer(hidden, None)
        last = vision.encoder.layers[-1]
        normalized = last.layer_norm1(hidden)
        keys = last.self_attn.k_proj(normalized)[:, self._skipped :].mT.unflatten(2, grid)
        if proxy is not None:
            grid, hidden = self._by_proxy(last, normalized, grid, proxy)
        else:
            hidden = self._finish(last, hidden, normalized, grid)[:, self._skipped :]
        return DensePatches(vision.post_layernorm(hidden).mT.unflatten(2, grid), keys)

    def project(self, features: Float[Tensor, "b c hp wp"]) -> Float[Tensor, "b d hp wp"]:
        """Map features into the space of the texts, each patch for itself."""
        tokens = features.movedim(1, -1)
        if not self.siglip:
            return self.tower.visual_projection(tokens).movedim(-1, 1)
        head = self.tower.head
        width = tokens.shape[-1]
        values = F.linear(
            tokens,
            head.attention.in_proj_weight[2 * width :],
            head.attention.in_proj_bias[2 * width :],
        )
        pooled = head.attention.out_proj(values)
        return (pooled + head.mlp(head.layernorm(pooled))).movedim(-1, 1)

    @property
    def patch_size(self) -> int:
        """Pixels a patch spans on each side."""
        return self.tower.config.patch_size

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.tower.config.hidden_size if self.siglip else self.tower.config.projection_dim

    @property
    def _vision(self) -> Any:
        return self.tower if self.siglip else self.tower.vision_model

    @property
    def _skipped(self) -> int:
        """Tokens before those of the patches."""
        return 0 if self.siglip else 1

    def _embed_patches(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """The tokens that the first block sees: transformers' own embedding resizes positions in one way only."""
        vision = self._vision
        patches = vision.embeddings.patch_embedding(images).flatten(2).mT
        positions = self._positions(vision.embeddings.position_embedding.weight, grid)
        if self.siglip:
            return patches + positions
        first = vision.embeddings.class_embedding.expand(len(patches), 1, -1)
        return vision.pre_layrnorm(torch.cat([first, patches], dim=1) + positions)

    def _positions(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        """Bring the learned positions to GRID; that of a class token stays."""
        first, rest = table[: self._skipped], table[self._skipped :]
        side = round(len(rest) ** 0.5)
        if grid == (side, side):
            return table
        square = rest.T.reshape(1, -1, side, side)
        if self._positions_by == "size":
            resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
        else:
            factor = [
                (length + 0.1) / side for length in grid
            ]  # the 0.1 keeps rounding from losing a row
            resized = F.interpolate(
                square, scale_factor=factor, mode="bicubic", align_corners=False
            )
        return torch.cat([first, resized[0].flatten(1).T])

    def _finish(
        self, layer: Any, hidden: Tensor, normalized: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """The last block as `last_block` has it."""
        block, attention = self.last_block, layer.self_attn
        heads = attention.num_heads
        parts = {
            "q": attention.q_proj(normalized),
            "k": attention.k_proj(normalized),
            "v": attention.v_proj(normalized),
        }
        if block.attention == "value":
            mixed = parts["v"]
        else:
            split = {
                name: part.unflatten(2, (heads, -1)).transpose(1, 2) for name, part in parts.items()
            }
            windows = None
            if block.neighbours is not None:
                windows = gaussian_windows(grid, block.neighbours).to(hidden)
                windows = F.pad(windows, (self._skipped, 0, self._skipped, 0))
            if block.attention == "window":
                assert windows is not None
                mixed = window_attention(split["q"], split["k"], windows) @ split["v"]
            else:
                mixed = pair_attention(split, block.attention.split("+"), windows)
            mixed = mixed.transpose(1, 2).flatten(2)
        mixed = attention.out_proj(mixed)
        hidden = hidden + mixed if block.residual else mixed
        return hidden + layer.mlp(layer.layer_norm2(hidden)) if block.feed_forward else hidden

    def _by_proxy(
        self, layer: Any, normalized: Tensor, grid: tuple[int, int], proxy: Tensor
    ) -> tuple[tuple[int, int], Tensor]:
        rows = round((proxy.shape[1] * grid[0] / grid[1]) ** 0.5)
        if rows < 1 or proxy.shape[1] % rows or rows * grid[1] * rows != proxy.shape[1] * grid[0]:
            raise ValueError(
                f"a proxy of {proxy.shape[1]} patches has not the shape of a photo of {grid} patches"
            )
        theirs = (rows, proxy.shape[1] // rows)
        values = layer.self_attn.v_proj(normalized)[:, self._skipped :].mT.unflatten(2, grid)
        values = F.interpolate(values, size=theirs, mode="bilinear", align_corners=False)
        return theirs, layer.self_attn.out_proj(proxy @ values.flatten(2).mT)

"""Base class of vision transformers for dense prediction, whose last block is a setting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from maskfree.nn.dense_clip_config import LastBlock
from maskfree.nn.dense_patches import DensePatches, PatchAttention
from maskfree.nn.dense_tower import DenseTower
from maskfree.nn.last_block import BlockParts, apply_last_block, apply_proxy
from maskfree.nn.stitching import stitch_windows


class DenseTransformer(DenseTower):
    """Vision transformer whose last block does what `last_block` says.

    A subclass names the modules of one kind of transformer: `embed`, `pool`, `blocks`,
    `block_parts`, `final_norm` and `num_prefix_tokens`.
    """

    def __init__(self, *, tower: nn.Module, last_block: LastBlock, statistics: str):
        """Wrap a vision transformer.

        Args:
            tower: Vision transformer of transformers.
            last_block: Changes to the last transformer block.
            statistics: Name of the color normalization, a key of `STATISTICS`.
        """
        super().__init__(tower=tower, statistics=statistics)
        self.last_block = last_block

    def read(
        self, images: Float[Tensor, "b 3 h w"], proxy: PatchAttention | None = None
    ) -> DensePatches:
        """Compute the features and keys of each patch, before the projection.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.
            proxy: Attention of a last block with attention "proxy"; its grid covers the images.

        Returns:
            Features after the last normalization, on the grid of the proxy if there is one, and
            keys of the last block.

        Raises:
            ValueError: A side is not a multiple of `patch_size`, or the last block needs a proxy.
        """
        grid, window_px = self.grid(images), self.last_block.stitch_px
        if window_px is None:
            return self.finish(self.before_last_block(images), grid, proxy)

        hidden = stitch_windows(
            self.before_last_block,
            images,
            patch_size=self.patch_size,
            window_px=window_px,
            num_prefix_tokens=self.num_prefix_tokens,
        )
        return self.finish(hidden, grid, proxy)

    def before_last_block(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Compute the tokens that enter the last block.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            `num_prefix_tokens` tokens of the whole image, then the patches in row-major order.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        hidden = self.embed(self.normalized(images), self.grid(images))
        for layer in self.blocks[:-1]:
            hidden = layer(hidden, None)
        return hidden

    def finish(
        self,
        hidden: Float[Tensor, "b n c"],
        grid: tuple[int, int],
        proxy: PatchAttention | None = None,
    ) -> DensePatches:
        """Apply the last block as `last_block` sets it, and the final normalization.

        Args:
            hidden: Tokens as `before_last_block` returns them.
            grid: Rows and columns of patches.
            proxy: Attention of a last block with attention "proxy".

        Returns:
            Features after the last normalization, on the grid of the proxy if there is one, and
            keys of the last block.

        Raises:
            ValueError: The last block needs a proxy.
        """
        skipped = self.num_prefix_tokens
        parts = self.block_parts(self.blocks[-1])

        # Keys are taken from the last block whatever it does with them.
        keys = parts.key(parts.norm(hidden))[:, skipped:].mT.unflatten(2, grid)

        if self.last_block.attention == "proxy":
            if proxy is None:
                raise ValueError("attention 'proxy' needs another encoder: give its attention")
            hidden = apply_proxy(parts, proxy, hidden[:, skipped:], grid)
            grid = proxy.grid
        else:
            hidden = apply_last_block(parts, self.last_block, hidden, grid, skipped)[:, skipped:]

        return DensePatches(self.final_norm(hidden).mT.unflatten(2, grid), keys)

    def embed_whole(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embed whole images as the network was trained to, by its own last block and pooling.

        Args:
            images: RGB images in [0, 1]; both sides are multiples of `patch_size`.

        Returns:
            Image embeddings, not normalized.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        return self.pool(self.blocks[-1](self.before_last_block(images), None))

    @abstractmethod
    def pool(self, hidden: Float[Tensor, "b n c"]) -> Float[Tensor, "b d"]:
        """Embed images by all their tokens, in the embedding space of the texts.

        Args:
            hidden: Tokens after the last block as it was trained.

        Returns:
            Image embeddings, not normalized.
        """

    @abstractmethod
    def embed(
        self, images: Float[Tensor, "b 3 h w"], grid: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Compute the tokens that enter the first block.

        Args:
            images: Images with normalized colors.
            grid: Rows and columns of patches.

        Returns:
            `num_prefix_tokens` tokens of the whole image, then the patches in row-major order.
        """

    @abstractmethod
    def final_norm(self, hidden: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Apply the normalization after the last block.

        Args:
            hidden: Tokens after the last block.

        Returns:
            Normalized tokens.
        """

    @abstractmethod
    def block_parts(self, layer: Any) -> BlockParts:
        """Name the modules of a block.

        Args:
            layer: One of `blocks`.

        Returns:
            Its modules under common names.
        """

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Any]:
        """Return the transformer blocks.

        Returns:
            Blocks, first to last.
        """

    @property
    @abstractmethod
    def num_prefix_tokens(self) -> int:
        """Return the number of tokens before those of the patches.

        Returns:
            Number of class and register tokens.
        """

    @property
    def patch_size(self) -> int:
        """Return the side of a patch.

        Returns:
            Side in pixels.
        """
        return self.tower.config.patch_size

"""OVSegmentor's image encoder: a vision transformer in two stages, with patches bound to group tokens between them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.binding import Assignment, Binding
from maskfree.nn.encoders import ImageEncoder, ImageEncoderConfig
from maskfree.nn.grouping_weights import read_vision_transformer
from maskfree.nn.projection import ProjectionConfig
from maskfree.nn.transformer import Block, initialise


@dataclass(frozen=True)
class Grouped:
    """The groups of a batch of images."""

    groups: Float[Tensor, "b g d"]
    """After the last normalisation, not projected."""
    assignment: Assignment
    patches: tuple[int, int]
    """Rows and columns of the grid that the patches of the assignment lie on, row by row."""


class GroupingEncoder(nn.Module):
    """Images in, a few groups of patches out: each a vector, with the map of the patches that it was made from.

    Source: arXiv:2301.09121, eq. 2. Differs with `keep_patches` off, as in the released code: the second stage sees the
    groups only.
    """

    def __init__(
        self,
        *,
        stem: ImageEncoder,
        widen: nn.Module,
        patch_norm: nn.Module,
        grid: tuple[int, int],
        first: nn.Sequential,
        binding: Binding,
        second: nn.Sequential,
        keep_patches: bool,
    ):
        super().__init__()
        self.channels = binding.dim
        self.stride_px = stem.stride_px
        self.num_groups = binding.num_groups
        self._grid = grid
        self._keep_patches = keep_patches
        self.stem = stem
        self.widen = widen
        self.patch_norm = patch_norm
        self.pos_embed = nn.Parameter(torch.empty(grid[0] * grid[1], binding.dim))
        self.group_token = nn.Parameter(torch.empty(1, binding.num_tokens, binding.dim))
        self.first = first
        self.binding = binding
        self.second = second
        self.norm = nn.LayerNorm(binding.dim)
        for part in (self.first, self.second):
            part.apply(initialise)
        for tokens in (self.pos_embed, self.group_token):
            nn.init.trunc_normal_(tokens, std=0.02)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Grouped:
        """Group RGB images in [0, 1] of any size that divides into patches of `stride_px`.

        Raises:
            ValueError: a side does not.
        """
        features = self.widen(self.stem(images))
        grid = (features.shape[-2], features.shape[-1])
        patches = self.patch_norm(features.flatten(2).mT) + self.positions(grid)
        tokens = self.first(torch.cat([patches, self.group_token.expand(len(patches), -1, -1)], dim=1))
        patches, tokens = tokens.split([patches.shape[1], self.group_token.shape[1]], dim=1)
        groups, assignment = self.binding(tokens, patches)
        if self._keep_patches:
            groups = torch.cat([patches, groups], dim=1)
        return Grouped(self.norm(self.second(groups)[:, -self.num_groups :]), assignment, grid)

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "n d"]:
        """Return what is added to the patches of a GRID, resized bicubically unless it is the one trained on."""
        if grid == self._grid:
            return self.pos_embed
        trained = self.pos_embed.T.unflatten(1, self._grid)[None]
        return F.interpolate(trained, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T


@dataclass(frozen=True)
class GroupingEncoderConfig:
    """Which grouping encoder; the defaults are the paper's, ViT-B/16 with 8 groups."""

    stem: ImageEncoderConfig | None = None
    """A convolutional encoder whose features take the place of the patch embedding."""
    widen: ProjectionConfig = field(default_factory=ProjectionConfig)
    """How the stem's features come to `dim` channels, if they are not of so many."""
    patch_norm: bool = False
    """Normalise the embedded patches before their positions are added."""
    patch_px: int = 16
    """Side of a patch, without a stem."""
    side_px: int = 224
    """Side of the square images that the position embedding is made for; others resize it."""
    dim: int = 768
    num_heads: int = 12
    """Of the transformer and of the binding's cross-attention; the released models have 8."""
    depths: tuple[int, int] = (6, 6)
    """Layers before and after the binding."""
    num_groups: int = 8
    num_tokens: int = 8
    """Learned group tokens of the first stage; if it is not `num_groups`, the binding mixes them to that number."""
    cross_attention: bool = False
    """Group tokens look at the patches once more before these are bound to them."""
    channel_mlp: bool = False
    """An MLP after the binding."""
    extra_mass: float = 0.0
    """Added to the number of patches that divides the sum over a group; the released models have 1."""
    hard: bool = True
    """Each patch goes to one group, drawn with Gumbel noise in training."""
    keep_patches: bool = True
    """The second stage sees the patches beside the groups, eq. 2; the released models' does not."""
    start: Literal["random", "likeness"] = "random"
    """The binding's first weights. "likeness", which is not in the paper: patches belong to the group tokens that they
    are like from the first step on; random maps take many epochs to sort them by anything."""
    drop_path: float = 0.1
    """Share of samples that skip the last layer in training; it grows from 0 at the first."""
    weights: str | None = None
    """Folder or Hugging Face name of a ViT, such as DINO's, which fills all but tokens and binding; None is random."""
    statistics: Literal["imagenet", "half", "clip"] = "imagenet"
    """Colour normalisation, without a stem."""

    def build(self) -> GroupingEncoder:
        """Make the encoder; weights are read if named.

        Raises:
            FileNotFoundError: there are no such weights.
            ValueError: values do not go together, or the weights do not fit.
        """
        if min(self.num_groups, self.num_tokens, *self.depths) < 1:
            raise ValueError(
                f"num_groups {self.num_groups}, num_tokens {self.num_tokens}, depths {self.depths}: each is at least 1"
            )
        if self.stem is not None and self.weights is not None:
            raise ValueError(f"weights {self.weights!r} come with a patch embedding: leave out the stem or them")
        stem = self.stem.build() if self.stem is not None else self._patch_embedding()
        side, rest = divmod(self.side_px, stem.stride_px)
        if rest or side < 1:
            raise ValueError(f"side_px {self.side_px} does not divide into patches of {stem.stride_px} px")
        binding = Binding(
            dim=self.dim,
            num_groups=self.num_groups,
            num_tokens=self.num_tokens,
            num_heads=self.num_heads,
            cross_attention=self.cross_attention,
            channel_mlp=self.channel_mlp,
            extra_mass=self.extra_mass,
            hard=self.hard,
        )
        shares = torch.linspace(0, self.drop_path, sum(self.depths)).tolist()
        blocks = [Block(dim=self.dim, num_heads=self.num_heads, drop_path=share) for share in shares]
        binding.apply(initialise)
        if self.start == "likeness":
            binding.start_by_likeness()
        same = stem.channels == self.dim
        encoder = GroupingEncoder(
            stem=stem,
            widen=nn.Identity() if same else self.widen.build_for_pixels(stem.channels, self.dim),
            patch_norm=nn.LayerNorm(self.dim) if self.patch_norm else nn.Identity(),
            grid=(side, side),
            first=nn.Sequential(*blocks[: self.depths[0]]),
            binding=binding,
            second=nn.Sequential(*blocks[self.depths[0] :]),
            keep_patches=self.keep_patches,
        )
        if self.weights is not None:
            read_vision_transformer(self.weights, encoder, self.depths)
        return encoder

    def without_pretrained(self) -> GroupingEncoderConfig:
        """The same network with every value of the stem spelled out and no outside weights."""
        return replace(self, weights=None, stem=self.stem.without_pretrained() if self.stem is not None else None)

    def _patch_embedding(self) -> ImageEncoder:
        return ImageEncoder(
            tower=nn.Conv2d(3, self.dim, self.patch_px, self.patch_px),
            read=_embed,
            channels=self.dim,
            stride_px=self.patch_px,
            statistics=self.statistics,
        )


def _embed(tower: nn.Module, images: Tensor, stride_px: int) -> Tensor:
    return tower(images)

"""OVSegmentor's image encoder: a two-stage vision transformer with group tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskfree.nn.binding import Assignment, Binding
from maskfree.nn.grouping_config import GroupingEncoderConfig
from maskfree.nn.grouping_weights import read_vision_transformer
from maskfree.nn.image_encoder import ImageEncoder
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.nn.transformer import Block, initialize


@dataclass(frozen=True)
class _Form:
    """Layers around the binding."""

    cross_attention: bool
    """Group tokens attend to the patches before the binding."""
    channel_mlp: bool
    """An MLP follows the binding."""
    extra_mass: float
    """Constant added to the number of patches of a group when their mean is computed."""
    keep_patches: bool
    """The second stage sees the patches beside the groups."""


_FORMS = {
    # arXiv:2301.09121, eq. 2 to 6.
    "paper": _Form(cross_attention=False, channel_mlp=False, extra_mass=0.0, keep_patches=True),
    # As the paper, with a second stage of a few tokens, for two CPU cores.
    "light": _Form(cross_attention=False, channel_mlp=False, extra_mass=0.0, keep_patches=False),
    # As in the authors' code, which follows GroupViT.
    "released": _Form(cross_attention=True, channel_mlp=True, extra_mass=1.0, keep_patches=False),
}


@dataclass(frozen=True)
class Grouped:
    """Groups of patches for a batch of images."""

    groups: Float[Tensor, "b g d"]
    """Group features after the last normalization, not projected."""
    assignment: Assignment
    """Assignment of patches to groups."""
    features: Float[Tensor, "b n d"] | None
    """Final features of the patches, normalized like the groups; None if they were not asked for or
    the second stage sees the groups only."""
    patches: tuple[int, int]
    """Rows and columns of the patch grid; patches of the assignment are in row-major order."""


class GroupingEncoder(nn.Module):
    """Encode images as a few groups of patches, each with a feature and an assignment map.

    Source: arXiv:2301.09121, eq. 2.

    Differs: without `keep_patches`, as in the released code, the second stage sees the groups only.
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
        """Combine the parts of the encoder.

        Args:
            stem: Image encoder that embeds the patches.
            widen: Projection of the stem's features to the transformer's width.
            patch_norm: Normalization of the embedded patches.
            grid: Rows and columns of the patch grid that the position embedding is made for.
            first: Transformer layers before binding.
            binding: Binding of patches to group tokens.
            second: Transformer layers after binding.
            keep_patches: Keep the patches beside the groups in the second stage.
        """
        super().__init__()
        self.channels = binding.dim
        self.patch_size = stem.patch_size
        self.num_groups = binding.num_groups
        self.keep_patches = keep_patches
        self._grid = grid

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
            part.apply(initialize)

        # Standard deviation 0.02, as in vision transformers.
        for tokens in (self.pos_embed, self.group_token):
            nn.init.trunc_normal_(tokens, std=0.02)

    def forward(self, images: Float[Tensor, "b 3 h w"], with_features: bool = True) -> Grouped:
        """Group the patches of images.

        Args:
            images: RGB images in [0, 1] of any size whose sides are multiples of `patch_size`.
            with_features: Also compute the final features of the patches.

        Returns:
            Group features and assignment maps.

        Raises:
            ValueError: A side is not a multiple of `patch_size`.
        """
        features = self.widen(self.stem(images))
        grid = (features.shape[-2], features.shape[-1])
        patches = self.patch_norm(features.flatten(2).mT) + self.positions(grid)

        # First stage: patches and group tokens attend to each other.
        tokens = self.first(
            torch.cat([patches, self.group_token.expand(len(patches), -1, -1)], dim=1)
        )
        patches, tokens = tokens.split([patches.shape[1], self.group_token.shape[1]], dim=1)

        # Second stage: groups made from patches, with the patches beside them or alone.
        groups, assignment = self.binding(tokens, patches)
        if not self.keep_patches:
            return Grouped(self.norm(self.second(groups)), assignment, None, grid)

        tokens = torch.cat([patches, groups], dim=1)
        if not with_features:
            # In the last layer the patches are only attended to.
            groups = self.second[-1](self.second[:-1](tokens), num_read=self.num_groups)
            return Grouped(self.norm(groups), assignment, None, grid)

        tokens = self.norm(self.second(tokens))
        features, groups = tokens.split([patches.shape[1], self.num_groups], dim=1)
        return Grouped(groups, assignment, features, grid)

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "n d"]:
        """Return the position embedding for a patch grid.

        Args:
            grid: Rows and columns of the patch grid.

        Returns:
            Embedding per patch, resized bicubically unless the grid is that of training.
        """
        if grid == self._grid:
            return self.pos_embed

        # Arrange the embedding as an image of the training grid.
        trained = self.pos_embed.T.unflatten(1, self._grid)[None]
        return (
            F.interpolate(trained, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T
        )


def _embed(tower: nn.Module, images: Tensor, patch_size: int) -> Tensor:
    """Return the feature map of a patch embedding."""
    return tower(images)


def build_grouping_encoder(config: GroupingEncoderConfig) -> GroupingEncoder:
    """Build a grouping encoder from its settings.

    Args:
        config: Settings of the encoder; its `weights` are loaded if they are set.

    Returns:
        The encoder.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: Settings contradict each other, or the weights do not fit.
    """
    if min(config.num_groups, config.num_tokens, *config.depths) < 1:
        raise ValueError(
            f"num_groups {config.num_groups}, num_tokens {config.num_tokens}, "
            f"depths {config.depths}: each is at least 1"
        )

    # Pretrained ViTs bring their own patch embedding.
    if config.stem is not None and config.weights is not None:
        raise ValueError(
            f"weights {config.weights!r} come with a patch embedding: leave out the stem or them"
        )

    if config.stem is None:
        stem = _patch_embedding(config)
    else:
        stem = config.stem.build()

    side, rest = divmod(config.side_px, stem.patch_size)
    if rest or side < 1:
        raise ValueError(
            f"side_px {config.side_px} does not divide into patches of {stem.patch_size} px"
        )

    form = _FORMS[config.form]
    binding = Binding(
        dim=config.dim,
        num_groups=config.num_groups,
        num_tokens=config.num_tokens,
        num_heads=config.num_heads,
        cross_attention=form.cross_attention,
        channel_mlp=form.channel_mlp,
        extra_mass=form.extra_mass,
    )

    # Stochastic depth grows linearly with depth over both stages.
    shares = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
    blocks = [
        Block(dim=config.dim, num_heads=config.num_heads, drop_path=share) for share in shares
    ]

    binding.apply(initialize)

    # Trained features are projected and normalized. They can be compared with tokens from the first
    # step on, while a random binding takes many epochs to form groups.
    widen: nn.Module = nn.Identity()
    patch_norm: nn.Module = nn.Identity()
    if config.stem is not None:
        widen = ProjectionConfig("classifier_mixture").build_for_pixels(stem.channels, config.dim)
        patch_norm = nn.LayerNorm(config.dim)
        binding.start_by_similarity()

    encoder = GroupingEncoder(
        stem=stem,
        widen=widen,
        patch_norm=patch_norm,
        grid=(side, side),
        first=nn.Sequential(*blocks[: config.depths[0]]),
        binding=binding,
        second=nn.Sequential(*blocks[config.depths[0] :]),
        keep_patches=form.keep_patches,
    )
    if config.weights is not None:
        read_vision_transformer(config.weights, encoder, config.depths)

    return encoder


def _patch_embedding(config: GroupingEncoderConfig) -> ImageEncoder:
    """Build a linear patch embedding as an image encoder."""
    return ImageEncoder(
        tower=nn.Conv2d(3, config.dim, config.patch_px, config.patch_px),
        read=_embed,
        channels=config.dim,
        patch_size=config.patch_px,
        statistics="imagenet",
    )

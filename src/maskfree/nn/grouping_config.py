"""Settings of OVSegmentor's image encoder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import Momentum, OutsideName, Side, Weight, Width, check
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

if TYPE_CHECKING:
    from maskfree.nn.grouping_encoder import GroupingEncoder


@dataclass(frozen=True)
class GroupingEncoderConfig:
    """Settings of a grouping image encoder; the defaults are the paper's ViT-B/16 with 8 groups."""

    stem: ImageEncoderConfig | None = None
    """Convolutional encoder whose features replace the patch embedding. None: a linear patch
    embedding."""
    widen: ProjectionConfig = field(default_factory=ProjectionConfig)
    """Projection of the stem's features to `dim` channels, if their number differs."""
    patch_norm: bool = False
    """Apply layer normalization to embedded patches before the position embedding is added."""
    patch_px: Side = 16
    """Side of a patch in pixels, without a stem."""
    side_px: Side = 224
    """Side in pixels of the square images that the position embedding is made for; it is resized
    for others."""
    dim: Width = 768
    """Number of channels of the transformer."""
    num_heads: Width = 12
    """Number of attention heads of the transformer and of the cross-attention in binding; the
    released models have 8."""
    depths: tuple[Width, Width] = (6, 6)
    """Number of transformer layers before and after binding."""
    num_groups: Width = 8
    """Number of groups that an image is divided into."""
    num_tokens: Width = 8
    """Number of learned group tokens of the first stage; if it differs from `num_groups`, an MLP
    maps them to that number."""
    cross_attention: bool = False
    """Add a cross-attention layer from group tokens to patches before binding."""
    channel_mlp: bool = False
    """Add an MLP after binding."""
    extra_mass: Weight = 0.0
    """Constant added to the number of patches of a group when their mean is computed; the released
    models have 1."""
    hard: bool = True
    """Assign each patch to one group (Gumbel-softmax with a straight-through gradient); False: soft
    assignment."""
    keep_patches: bool = True
    """Keep the patches beside the groups in the second stage (eq. 2 of the paper); the released
    models do not."""
    start: Literal["random", "likeness"] = "random"
    """Initialization of the binding. "likeness" (not in the paper): patches are assigned to the
    most similar group tokens from the first step on; "random" takes many epochs to form groups."""
    drop_path: Momentum = 0.1
    """Stochastic depth rate of the last layer; it grows linearly from 0 at the first."""
    weights: OutsideName | None = None
    """Pretrained ViT, such as DINO's, for all but group tokens and binding: a local folder or a
    Hugging Face name. None: random initialization."""
    statistics: Literal["imagenet", "half", "clip"] = "imagenet"
    """Mean and standard deviation that normalize colors, without a stem."""

    def build(self) -> GroupingEncoder:
        """Build the encoder and load its pretrained weights, if any.

        Returns:
            The encoder.

        Raises:
            FileNotFoundError: There are no such weights.
            ValueError: Settings contradict each other, or the weights do not fit.
        """
        from maskfree.nn.grouping_encoder import build_grouping_encoder

        check(self)
        return build_grouping_encoder(self)

    def without_pretrained(self) -> GroupingEncoderConfig:
        """Copy the settings with the stem's full architecture and without pretrained weights.

        Returns:
            Settings that build the same network without access to the pretrained weights.
        """
        return replace(
            self,
            weights=None,
            stem=self.stem.without_pretrained() if self.stem is not None else None,
        )

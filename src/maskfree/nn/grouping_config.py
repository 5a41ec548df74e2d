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
    """Which grouping encoder; the defaults are the paper's, ViT-B/16 with 8 groups."""

    stem: ImageEncoderConfig | None = None
    """A convolutional encoder whose features take the place of the patch embedding."""
    widen: ProjectionConfig = field(default_factory=ProjectionConfig)
    """How the stem's features come to `dim` channels, if they are not of so many."""
    patch_norm: bool = False
    """Normalize the embedded patches before their positions are added."""
    patch_px: Side = 16
    """Side of a patch, without a stem."""
    side_px: Side = 224
    """Side of the square images that the position embedding is made for; others resize it."""
    dim: Width = 768
    num_heads: Width = 12
    """Of the transformer and of the binding's cross-attention; the released models have 8."""
    depths: tuple[Width, Width] = (6, 6)
    """Layers before and after the binding."""
    num_groups: Width = 8
    num_tokens: Width = 8
    """Learned group tokens of the first stage; if it is not `num_groups`, the binding mixes them to that number."""
    cross_attention: bool = False
    """Group tokens look at the patches once more before these are bound to them."""
    channel_mlp: bool = False
    """An MLP after the binding."""
    extra_mass: Weight = 0.0
    """Added to the number of patches that divides the sum over a group; the released models have 1."""
    hard: bool = True
    """Each patch goes to one group, drawn with Gumbel noise in training."""
    keep_patches: bool = True
    """The second stage sees the patches beside the groups, eq. 2; the released models' does not."""
    start: Literal["random", "likeness"] = "random"
    """The binding's first weights. "likeness", which is not in the paper: patches belong to the group tokens that they
    are like from the first step on; random maps take many epochs to sort them by anything."""
    drop_path: Momentum = 0.1
    """Share of samples that skip the last layer in training; it grows from 0 at the first."""
    weights: OutsideName | None = None
    """Folder or Hugging Face name of a ViT, such as DINO's, which fills all but tokens and binding; None is random."""
    statistics: Literal["imagenet", "half", "clip"] = "imagenet"
    """Color normalization, without a stem."""

    def build(self) -> GroupingEncoder:
        """Make the encoder; weights are read if named.

        Raises:
            FileNotFoundError: there are no such weights.
            ValueError: values do not go together, or the weights do not fit.
        """
        from maskfree.nn.grouping_encoder import build_grouping_encoder

        check(self)
        return build_grouping_encoder(self)

    def without_pretrained(self) -> GroupingEncoderConfig:
        """The same network with every value of the stem spelled out and no outside weights."""
        return replace(
            self,
            weights=None,
            stem=self.stem.without_pretrained() if self.stem is not None else None,
        )

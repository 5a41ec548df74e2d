"""Settings of image encoders for dense prediction, with published presets of the last block."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from maskfree.config.rules import OutsideName, Positive, Side, check
from maskfree.nn.encoder_config import Value

if TYPE_CHECKING:
    from maskfree.nn.dense_tower import DenseTower


Attention = Literal["value", "qk", "qq", "kk", "vv", "qq+kk", "qq+kk+vv", "window", "proxy"]
"""Pairs of query (q), key (k) and value (v) whose softmax weights are summed, a window, or the
attention of another encoder."""


@dataclass(frozen=True)
class LastBlock:
    """Settings of the last transformer block in dense prediction."""

    attention: Attention = "value"
    """Attention of the last block: "qk" is the trained one, "value" reads from the patch itself
    only, sums such as "qq+kk" add the softmax attention of both pairs, "window" depends on distance
    only, "proxy" comes from another encoder."""
    residual: bool = True
    """Add the attention output to its input, as trained; False: replace the input."""
    feed_forward: bool = True
    """Apply the feed-forward half of the block."""
    neighbors: Positive | None = None
    """Standard deviation, in patches, of a Gaussian window that is added to the attention logits.
    None: no window."""
    recursion: Positive | None = None
    """Scale of cosines between the attention's own outputs, by which the values are read a second
    time; published: 10. None: read once."""
    stitch_px: Side | None = None
    """Side in pixels of half-overlapping windows that pass the blocks before this one by
    themselves; this block sees their patches together. None: whole images pass all blocks."""

    def __post_init__(self) -> None:
        check(self)
        if self.attention == "window" and self.neighbors is None:
            raise ValueError("attention 'window' needs the width of its window: set neighbors")
        if self.attention == "value" and self.neighbors is not None:
            raise ValueError(
                "attention 'value' reads from the patch itself: "
                "neighbors has no effect, leave it out"
            )
        if self.recursion is not None and self.attention in ("value", "proxy"):
            raise ValueError(
                f"recursion repeats an attention, and attention is {self.attention!r}: leave it out"
            )
        # The output lies on the other encoder's patch grid.
        if self.attention == "proxy" and (self.residual or self.feed_forward or self.neighbors):
            raise ValueError(
                "attention 'proxy' replaces the block: "
                "set residual and feed_forward to False and leave neighbors out"
            )


TRAINED = LastBlock("qk")
"""The block as it was trained."""
MASKCLIP = LastBlock("value")
"""MaskCLIP as published, with residual and feed-forward. Source: arXiv:2112.01071, section 3.2."""
VALUE_ONLY = LastBlock("value", residual=False, feed_forward=False)
"""MaskCLIP as later work compares with it: value and output projection only."""
CLIP_SURGERY = LastBlock("vv", residual=False, feed_forward=False)
"""Value-value attention. Source: arXiv:2304.05653, section 3.3. Differs: in the last block only."""
SCLIP = LastBlock("qq+kk")
"""Correlative self-attention. Source: arXiv:2312.01597, eq. 4."""
CLEARCLIP = LastBlock("qq", residual=False, feed_forward=False)
"""Query-query attention without residual and feed-forward. Source: arXiv:2407.12442, eq. 8."""
NACLIP = LastBlock("kk", residual=False, feed_forward=False, neighbors=5.0)
"""Key-key attention with a Gaussian window. Source: arXiv:2404.08181, section 3.2."""
RADSEG = LastBlock("qk", recursion=10.0)
"""Self-correlating recursive attention. Source: arXiv:2511.19704."""
PROXY = LastBlock("proxy", residual=False, feed_forward=False)
"""Attention of another encoder. Source: arXiv:2408.04883, section 3.3."""
PRESETS = {
    "trained": TRAINED,
    "maskclip": MASKCLIP,
    "value_only": VALUE_ONLY,
    "clip_surgery": CLIP_SURGERY,
    "sclip": SCLIP,
    "clearclip": CLEARCLIP,
    "naclip": NACLIP,
    "radseg": RADSEG,
}
"""Published settings of the last block by name, those that need no other encoder."""


@dataclass(frozen=True)
class DenseClipConfig:
    """Settings of the image encoder of a CLIP, or of a later model of its kind.

    The published MaskCLIP has `hidden_act` "gelu", `layer_norm_eps` 1e-6 and `statistics`
    "imagenet", which differ from CLIP's.
    """

    family: Literal["clip", "metaclip_2", "siglip", "siglip2", "tipsv2", "clip_resnet"] = "clip"
    """Network family of the image encoder; "siglip2" is NaFlex, a SigLIP 2 of fixed size is a
    "siglip"."""
    architecture: dict[str, Value] = field(default_factory=dict)
    """Values that override fields of transformers' configuration of the image encoder, such as
    CLIPVisionConfig; for "clip_resnet" the arguments of open_clip's ModifiedResNet."""
    weights: OutsideName | None = None
    """Pretrained weights: a local folder or a Hugging Face name. None: random initialization."""
    last_block: LastBlock = MASKCLIP
    """Changes to the last transformer block; without effect for "clip_resnet"."""
    positions: Literal["size", "factor"] = "size"
    """How the position embedding is resized: "size" to the patch grid, "factor" by the scale factor
    (n + 0.1) / side, as SCLIP does; "siglip2" and "tipsv2" have a way of their own."""
    statistics: Literal["imagenet", "half", "clip", "none"] | None = None
    """Mean and standard deviation that normalize colors. None: those of the family."""

    def build(self) -> DenseTower:
        """Build the image encoder and load its pretrained weights, if any.

        Returns:
            The encoder.

        Raises:
            FileNotFoundError: There are no such weights.
            ValueError: The settings do not fit the family, or the weights do not fit the network.
        """
        from maskfree.nn.dense_families import build_dense_tower

        return build_dense_tower(self)

    def without_pretrained(self) -> DenseClipConfig:
        """Copy the settings with the full architecture and without pretrained weights.

        Returns:
            Settings that build the same network without access to the pretrained weights.
        """
        from maskfree.nn.configurations import plain_fields
        from maskfree.nn.dense_families import vision_configuration

        if self.family == "clip_resnet":
            return self
        return replace(self, architecture=plain_fields(vision_configuration(self)), weights=None)
